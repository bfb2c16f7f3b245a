package world

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/handover"
	"github.com/doppel-iot/doppel/cluster/peers"
	"github.com/doppel-iot/doppel/cluster/placement"
	"github.com/doppel-iot/doppel/cluster/router"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// node is a place for one process after another, with one id and one session at the broker.
type node struct {
	slot     int
	name     string
	capacity int
	starts   uint64
	p        *process // nil: it is down
	session  *mqttSession
}

// process is one life of a node, with everything between it and the world. Of a paused one nothing is heard
// until it goes on, of a dead one nothing but what was on its way.
type process struct {
	w           *World
	n           *node
	incarnation uint64
	skew        int64 // of its clock
	born        int64

	dead, paused bool
	cut          bool // from the log, the group and doppel.nodes
	leaving      bool // in order

	host   *host.Host
	steps  *host.Stepper
	peers  *peers.Peers
	mover  *handover.Mover
	router *router.Router
	ctx    context.Context //nolint:containedctx // ends with the process
	kill   context.CancelFunc

	log, state, ingest, alerts port
	jobs                       []job
	handlers                   map[string]func(from string, m proto.Message)
	routines                   []*routine
	late                       []func() // timers that were due while it was paused
	table                      *placement.Table
	fresh                      bool // its session with the group is in force
	known                      int  // how much of doppel.nodes it has read
	beat                       int64
	tries                      map[uint64]*try
	arrived                    []uint64             // of tries, those that the router is to be given
	heard                      map[string]time.Time // when anything last came from a node
	offered                    map[*message]bool    // taken from the broker, no answer yet
}

// job is a write to the dead letters: land makes it durable, and done says so.
type job struct {
	land func()
	done func(error)
}

// boot starts a process on a node that is down.
func (w *World) boot(n *node) {
	n.starts++
	w.counts.boots++
	p := &process{
		w: w, n: n, incarnation: n.starts, born: w.now, handlers: map[string]func(string, proto.Message){},
		tries: map[uint64]*try{}, offered: map[*message]bool{}, heard: map[string]time.Time{},
	}
	p.ctx, p.kill = context.WithCancel(context.Background())
	if w.climate.skew > 0 {
		p.skew = w.rng.Int64N(2*int64(w.climate.skew)) - int64(w.climate.skew)
	}
	for _, s := range w.shards {
		p.log.sessions = append(p.log.sessions, &session{t: &s.log, p: p})
		p.state.sessions = append(p.state.sessions, &session{t: &s.state, p: p})
		p.ingest.sessions = append(p.ingest.sessions, &session{t: &s.ingest, p: p})
		p.alerts.sessions = append(p.alerts.sessions, &session{t: &s.alerts, p: p})
	}
	p.log.p, p.state.p, p.ingest.p, p.alerts.p = p, p, p, p
	logger := slog.New(slog.DiscardHandler)
	if w.trace != nil {
		logger = slog.New(slog.NewTextHandler(w.trace, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: withoutTime})).With("node", n.name)
	}
	p.peers = must(peers.New(peers.Config{
		Node: n.name, Incarnation: p.incarnation, Wire: wire{p}, Clear: p.clear, Changed: func() { p.mover.Changed() },
		Clock: p.time, Logger: logger,
	}))
	p.mover = must(handover.New(handover.Config{
		Node: n.name, Partitions: int32(len(w.shards)), Host: partitions{p}, Peers: p.peers, Wire: wire{p},
		Fresh: func() bool { return p.fresh }, Clock: p.time, Go: p.spawn, Logger: logger,
	}))
	p.host = must(host.New(p.config(logger)))
	p.steps = host.NewStepper(p.host)
	p.router = router.New(router.Config{
		Owners: owners{p}, Partitions: int32(len(w.shards)), Ingest: &feed{&p.ingest}, Wire: wire{p}, Route: p.route, Beside: sideways{p},
	})
	n.p = p
	p.peers.Listen()
	p.mover.Listen()
	p.readNodes()
	p.peers.Known()
	p.spawn(p.clearing)
	p.spawn(p.reading)
	w.join(p)
}

func (p *process) config(logger *slog.Logger) host.Config {
	w := p.w
	cfg := host.Config{
		Node: p.n.name, Incarnation: p.incarnation, Partitions: int32(len(w.shards)), Engine: w.lab.hosts[p.n.slot].Engine(),
		Changelog: &p.log, State: &p.state, Ingest: &feed{&p.ingest}, DeadLetters: (*letters)(p), Alerts: (*alerts)(p),
		Devices: (*devices)(p), Rows: (*rows)(p), Retention: retention{p}, Gateways: p.peers, Served: p.peers.Served,
		Rules: w.lab.rules, CheckpointAfter: 300 * time.Millisecond, PassivateAfter: 2 * time.Second,
		Clock: func() int64 { return w.now + p.skew }, Nonce: w.rng.Uint64, Beside: beside{p}, Logger: logger,
	}
	if w.broken != nil && w.broken.host != nil {
		w.broken.host(p, &cfg)
	}
	return cfg
}

func (p *process) time() time.Time { return p.w.time().Add(time.Duration(p.skew)) }

// idle says that nothing of p may happen now.
func (p *process) idle() bool { return p.dead || p.paused }

// connected is the error of whoever asks the log something.
func (p *process) connected(ctx context.Context) error {
	switch {
	case p.dead:
		return errProcess
	case p.cut:
		return errCut
	}
	return ctx.Err()
}

func (p *process) pause() { p.paused = true }

func (p *process) resume() {
	if !p.paused {
		return
	}
	p.paused, p.fresh = false, false // it cannot know before it asks
	late := p.late
	p.late = nil
	for _, fn := range late {
		fn()
	}
}

// crash ends p at once. Some of what it sent may land later.
func (w *World) crash(p *process) {
	w.counts.crashes++
	p.dead, p.fresh, p.n.p = true, false, nil
	p.kill()
	p.stopAll()
	p.steps.Kill()
	for _, all := range [...][]*session{p.log.sessions, p.state.sessions, p.ingest.sessions, p.alerts.sessions} {
		for _, s := range all {
			if left := len(s.queue) - s.landed; left > 0 {
				s.queue = s.queue[:s.landed+w.rng.IntN(left+1)]
			}
			if len(s.queue) > s.landed {
				w.strays = append(w.strays, stray{s, w.now})
			}
		}
	}
	for _, t := range w.tellings {
		if t.p == p {
			t.since = w.now
		}
	}
	w.disconnect(p)
	w.net.forget(p.n.name)
}

// stray is a connection of a crashed process: some of what it sent is on its way.
type stray struct {
	*session
	since int64
}

// step lets p do what waits, or what time has made due.
func (p *process) step() {
	for i := range p.w.shards {
		p.steps.Step(int32(i))
	}
	if b := p.w.broken; b != nil && b.stepped != nil {
		b.stepped(p)
	}
	if !p.leaving {
		p.mover.Step(p.ctx)
	}
	if p.w.now >= p.beat {
		p.beat = p.w.now + int64(100*time.Millisecond)
		p.peers.Beat()
	}
}

// run takes the steps of what was woken; false: nothing was.
func (p *process) run() (woken bool) {
	for i := range p.w.shards {
		if p.steps.Woken(int32(i)) {
			woken = true
			p.steps.Step(int32(i))
		}
	}
	if b := p.w.broken; b != nil && b.stepped != nil {
		b.stepped(p)
	}
	return woken
}

// beside implements host.Beside.
type beside struct{ p *process }

// Go implements host.Beside.
func (b beside) Go(fn func()) { b.p.spawn(fn) }

// After implements host.Beside.
func (b beside) After(d time.Duration, fn func()) {
	b.p.w.after(d, func() {
		switch {
		case b.p.dead:
		case b.p.paused:
			b.p.late = append(b.p.late, fn)
		default:
			fn()
		}
	})
}

// partitions implements handover.Host.
type partitions struct{ p *process }

// Own implements handover.Host.
func (h partitions) Own(part int32) { h.p.host.Own(part) }

// Warm implements handover.Host.
func (h partitions) Warm(ctx context.Context, part int32) error { return h.p.warm(ctx, part) }

// Release implements handover.Host.
func (h partitions) Release(_ context.Context, part int32) error {
	h.p.steps.Leave(part)
	if !h.p.park(func() bool { return !h.p.steps.Owned(part) }) {
		return errProcess
	}
	return nil
}

// Drop implements handover.Host.
func (h partitions) Drop(part int32) { h.p.host.Drop(part) }

// Serves implements handover.Host.
func (h partitions) Serves(part int32) bool { return h.p.steps.Owned(part) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("world: %v", err))
	}
	return v
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

func record(n *node) *doppelv1.NodeRecord {
	return &doppelv1.NodeRecord{Id: n.name, Address: n.name, MqttClientId: n.name, Incarnation: n.starts}
}

// warm reads ahead, if the host can.
func (p *process) warm(ctx context.Context, part int32) error {
	if h, ok := any(p.host).(interface {
		Warm(ctx context.Context, p int32) error
	}); ok {
		return h.Warm(ctx, part)
	}
	return nil
}
