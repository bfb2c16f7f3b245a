package world

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/ruleset"
)

const (
	maxNodes = 3
	epoch    = int64(1_750_000_000_000_000_000) // when every world begins
)

// Lab holds what worlds use one after another and is dear to make. One goroutine uses a Lab.
type Lab struct {
	hosts [maxNodes]*host.Host // of a node's processes, for their actor engines
	rules *alert.Set           // that every node brings itself

	compiler *ruleset.Compiler
}

// NewLab makes a Lab.
func NewLab() *Lab {
	l := &Lab{rules: rules(), compiler: ruleset.NewCompiler()}
	for i := range l.hosts {
		p := &process{}
		l.hosts[i] = must(host.New(host.Config{
			Partitions: 1, Changelog: &p.log, State: &p.state, Ingest: &feed{&p.ingest}, DeadLetters: (*letters)(p), Alerts: (*alerts)(p),
			Clock: func() int64 { return 0 }, Nonce: func() uint64 { return 0 }, Logger: slog.New(slog.DiscardHandler),
		}))
	}
	return l
}

// breaks is a rule of the protocol that a world does not keep; nil parts are left alone.
type breaks struct {
	host       func(p *process, cfg *host.Config)
	climate    func(c *climate)
	offer      func(p *process, m *message) (taken bool) // before a message is offered to an owner
	stepped    func(p *process)                          // after each turn of a process
	wire       func(m proto.Message)                     // before a message leaves for another node
	unclear    bool                                      // doors say that they are clear without looking
	sentOnly   bool                                      // doors that are clear do not mind what the broker holds back
	unadopted  bool                                      // nobody sees to the sessions of the dead
	coldReader bool                                      // a reader takes the first record it meets for valid
	byArrival  bool                                      // a reader of alerts counts the last that came, not the newest
}

// shard is one partition: its topics, and who judges what comes of them.
type shard struct {
	id                         int32
	log, state, ingest, alerts topic
	judge                      *judge
	needs                      []needed
}

// World is one schedule.
type World struct {
	clock

	lab     *Lab
	climate climate
	broken  *breaks
	trace   io.Writer
	rng     *rand.Rand
	found   string // the first thing that was wrong
	counts  Counts
	inside  *routine // that runs now

	shards    []*shard
	nodes     []*node
	strays    []stray
	group     group
	net       network
	loads     []*load
	known     map[string]*message // by name
	token     uint64
	published map[number]int64  // when the broker had a sample first
	letters   map[string]bool   // payloads
	tellings  []*telling        // on their way
	retained  map[string]string // what the broker keeps for devices
	written   int               // by people
	orders    []*ruleset.Set    // the rules that people wanted, newest last
}

// Play plays the world of a seed and returns what was wrong with it; empty: nothing. Every step is written to
// trace, unless it is nil.
func (l *Lab) Play(seed uint64, trace io.Writer, sum *Counts) (found string) {
	return l.play(seed, nil, trace, sum)
}

func (l *Lab) play(seed uint64, broken *breaks, trace io.Writer, sum *Counts) string {
	w := l.world(seed, broken, trace)
	defer w.end(sum)
	for range w.climate.steps {
		w.step()
		if w.found != "" {
			return w.found
		}
	}
	w.rest()
	return w.found
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 5)) }

func (l *Lab) world(seed uint64, broken *breaks, trace io.Writer) *World {
	w := &World{
		clock: clock{now: epoch}, lab: l, broken: broken, trace: trace, rng: seeded(seed),
		known: map[string]*message{}, published: map[number]int64{}, letters: map[string]bool{}, retained: map[string]string{},
	}
	w.net.w = w
	w.climate = newClimate(w.rng)
	if broken != nil && broken.climate != nil {
		broken.climate(&w.climate)
	}
	for i := range w.climate.partitions {
		s := &shard{id: int32(i)}
		s.judge = newJudge(w, s)
		s.log.landed = s.judge.landed
		s.ingest.landed = func(offset int64, f *flight) {
			f.message.chances++
			f.message.stored = true
			w.tracef("ingest[%d][%d] = %s", s.id, offset, f.message)
		}
		s.alerts.landed = func(_ int64, f *flight) { s.judge.published(f.transition) }
		w.shards = append(w.shards, s)
	}
	w.loads = newLoads(w.rng, &w.climate, epoch)
	for _, d := range w.loads {
		for _, m := range d.unsent {
			w.known[m.name()] = m
		}
	}
	for i := range w.climate.nodes {
		w.nodes = append(w.nodes, &node{slot: i, name: string(rune('a' + i)), capacity: 1})
	}
	for _, from := range w.nodes { // all, or their order would be that of the first packets
		for _, to := range w.nodes {
			if from != to {
				w.net.links = append(w.net.links, &link{from: from.name, to: to.name})
			}
		}
	}
	for _, n := range w.nodes {
		if n.slot == 0 || w.rng.IntN(2) == 0 {
			w.boot(n)
		}
	}
	return w
}

// end leaves nothing behind in the lab.
func (w *World) end(sum *Counts) {
	for _, n := range w.nodes {
		if p := n.p; p != nil {
			p.dead = true
			p.kill()
			p.stopAll()
			p.steps.Kill()
		}
	}
	w.counts.Worlds++
	for _, s := range w.shards {
		w.counts.transitions += len(s.judge.real)
		w.counts.forced += s.judge.forced
		for _, tw := range s.judge.twins {
			w.counts.late += int(tw.Counters().Late)
		}
	}
	w.counts.letters = len(w.letters)
	sum.add(&w.counts)
}

func (w *World) fail(format string, args ...any) {
	if w.found == "" {
		w.found = fmt.Sprintf(format, args...)
		w.tracef("WRONG: %s", w.found)
	}
}

func (w *World) tracef(format string, args ...any) {
	if w.trace != nil {
		fmt.Fprintf(w.trace, "%12v %s\n", time.Duration(w.now-epoch), fmt.Sprintf(format, args...))
	}
}

func (w *World) byName(name string) *node {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	panic("world: no node " + name)
}
