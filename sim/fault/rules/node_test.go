package rules

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/host"
)

// node is a host with everything between it and the world. A paused one gets no answers and nothing of
// it lands; of a crashed one nothing is heard any more, but for what was on its way.
type node struct {
	w     *world
	name  string
	host  *host.Host
	log   *session
	state *session
	alive context.CancelFunc
	ended chan error // what Serve returned
	done  bool       // ended was read
	// push takes messages in; variants stand before it.
	push func(ctx context.Context, msgs []host.Message) error

	mu    sync.Mutex
	dead  bool
	stale bool          // another node was given the partition, and this one may hear of it
	gate  chan struct{} // closed while the node runs
	jobs  []job         // alerts and dead letters on their way
	fetch int64         // records of ingest that may be read
	more  chan struct{} // closed when fetch grows
}

// job is a write to a topic nobody numbers: land makes it durable, and done says so.
type job struct {
	land func()
	done func(error)
}

// setStale: another node was given the partition, and this one may hear of it.
func (n *node) setStale() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stale = true
}

func (n *node) isStale() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stale
}

func (n *node) crashed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dead
}

// pass waits while the node is paused.
func (n *node) pass(ctx context.Context) error {
	n.mu.Lock()
	gate, dead := n.gate, n.dead
	n.mu.Unlock()
	if dead {
		return errLost
	}
	select {
	case <-gate:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *node) paused() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.shut()
}

// shut says that the gate is. Under mu.
func (n *node) shut() bool {
	select {
	case <-n.gate:
		return false
	default:
		return true
	}
}

func (n *node) pause() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gate = make(chan struct{})
}

func (n *node) resume() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.shut() { // two timers may come to it at once
		close(n.gate)
	}
}

func (n *node) crash() {
	n.mu.Lock()
	n.dead, n.jobs = true, nil
	n.mu.Unlock()
	n.resume()
	n.alive()
}

// fetchMore lets the node read more of ingest.
func (n *node) fetchMore(records int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fetch += records
	close(n.more)
	n.more = make(chan struct{})
}

// fetched waits until the node may read ingest at offset.
func (n *node) fetched(ctx context.Context, offset int64) error {
	for {
		n.mu.Lock()
		may, more := offset < n.fetch, n.more
		n.mu.Unlock()
		if may {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *node) job(j job) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.dead {
		n.jobs = append(n.jobs, j)
	}
}

// finish ends the oldest job; failing: it is not done.
func (n *node) finish(failing bool) bool {
	n.mu.Lock()
	if len(n.jobs) == 0 || n.dead {
		n.mu.Unlock()
		return false
	}
	j := n.jobs[0]
	n.jobs = n.jobs[1:]
	n.mu.Unlock()
	if failing {
		j.done(errFault)
		return true
	}
	j.land()
	j.done(nil)
	return true
}

// over says whether Serve has returned.
func (n *node) over() bool {
	if !n.done {
		select {
		case err := <-n.ended:
			n.done = true
			if err != nil && !n.crashed() && !errors.Is(err, context.Canceled) {
				n.w.judge.fail("node %s refuses to serve: %v", n.name, err)
			}
		default:
		}
	}
	return n.done
}

// Done implements host.Reply.
func (n *node) Done(tokens []uint64, v host.Verdict) {
	if n.crashed() {
		return
	}
	for _, t := range tokens {
		n.w.verdict(n, t, v)
	}
}

// Put implements host.DeadLetters.
func (n *node) Put(_ context.Context, d host.DeadLetter, done func(error)) {
	payload := string(d.Payload)
	n.job(job{func() { n.w.judge.letter(payload) }, done})
}

// Publish implements host.AlertLog.
func (n *node) Publish(_ context.Context, t host.Transition, done func(error)) {
	n.job(job{func() { n.w.judge.published(&t) }, done})
}

// Offer implements host.RowSink. Like a store that is busy, it takes none.
func (n *node) Offer(r *host.Rows) bool {
	if !n.crashed() {
		n.w.judge.rows(n.name, r)
	}
	return false
}

// ingest is doppel.ingest as a node sees it.
type ingest struct {
	*session
	n *node
}

// Follow implements host.Ingest.
func (i *ingest) Follow(ctx context.Context, _ int32, from int64, take func([]host.IngestRecord) error) error {
	for next := from; ; next++ {
		if err := i.n.fetched(ctx, next); err != nil {
			return err
		}
		if _, err := i.get(ctx, next); err != nil {
			return err
		}
		m := i.n.w.ingested(next)
		if err := take([]host.IngestRecord{{Offset: next, Home: -1, Message: m}}); err != nil {
			return err
		}
	}
}

// Append implements host.Ingest; nothing is misplaced where there is one partition.
func (i *ingest) Append(_ context.Context, _ int32, _ *host.Message, done func(error)) {
	go done(errors.New("one partition"))
}

// retention remembers what the node says it needs.
type retention struct{ w *world }

// Needs implements host.Retention.
func (r retention) Needs(_ int32, n host.Needs) { r.w.need(n) }

// Oldest implements host.Retention.
func (r retention) Oldest(int32) (host.Cursor, bool) { return host.Cursor{}, false }

// boot starts a node that serves the partition; often one that was about to.
func (w *world) boot() *node {
	n := w.heir
	if n == nil || w.rng.IntN(8) == 0 {
		n = w.prepare()
	} else {
		w.heir = nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.alive = cancel
	go func() { n.ended <- n.host.Serve(ctx, []int32{0}) }()
	w.nodes, w.all = append(w.nodes, n), append(w.all, n)
	return n
}

// warm lets a node read what it will need when it is given the partition.
func (w *world) warm() {
	if w.heir == nil {
		w.heir = w.prepare()
	}
	n := w.heir
	go func() {
		if err := n.host.Warm(context.Background(), 0); err == nil {
			w.warmed.Add(1)
		}
	}()
}

// prepare makes a node that does nothing yet.
func (w *world) prepare() *node {
	w.booted++
	booted := uint64(w.booted)
	n := &node{w: w, name: fmt.Sprintf("n%d", w.booted), ended: make(chan error, 1), gate: make(chan struct{}), more: make(chan struct{})}
	close(n.gate)
	n.log, n.state = &session{t: w.log, n: n}, &session{t: w.state, n: n}
	cfg := host.Config{
		Node: n.name, Incarnation: booted, Partitions: 1,
		Changelog: n.log, State: n.state, Ingest: &ingest{&session{t: w.ingest, n: n}, n},
		DeadLetters: n, Alerts: n, Rows: n, Retention: retention{w},
		Rules: w.rules, Limits: w.limits, CheckpointAfter: 300 * time.Millisecond, PassivateAfter: 2 * time.Second,
		Clock: func() int64 { return time.Now().UnixNano() }, Nonce: func() uint64 { return booted },
		Logger: slog.New(slog.DiscardHandler),
	}
	n.push = func(ctx context.Context, msgs []host.Message) error { return n.host.Push(ctx, 0, msgs) }
	if w.panics.Load() > 0 { // the twin's code panics once in this world, and that is logged
		cfg.BeforeStep = func(device string) {
			if device != "dev-3" {
				return
			}
			if w.panics.Add(-1) == 0 {
				panic("as the world wants it")
			}
		}
	}
	if w.trace != nil {
		cfg.Logger = slog.New(slog.NewTextHandler(w.trace, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", n.name)
	}
	if w.broken != nil {
		w.broken(n, &cfg)
	}
	h, err := host.New(cfg)
	if err != nil {
		panic(err)
	}
	n.host = h
	return n
}

// rulesOf are alert rules that fire often under the load, and wait for event time and for logged ticks.
func rulesOf() *alert.Set {
	hot := []alert.Level{{Severity: alert.Warning, Enter: 50, Exit: 40, Op: ">"}}
	set, err := alert.NewSet(append(
		alert.Builtin(),
		alert.Rule{ID: "hot", Version: 1, Kind: alert.Threshold, Metric: "t", ForSamples: 2, Levels: hot},
		alert.Rule{ID: "stays-hot", Version: 1, Kind: alert.Threshold, Metric: "t", ForDuration: 60 * time.Millisecond, Levels: hot},
		alert.Rule{ID: "quiet", Version: 1, Kind: alert.Stale, ForDuration: 400 * time.Millisecond, Levels: []alert.Level{{Severity: alert.Info}}},
	))
	if err != nil {
		panic(err)
	}
	return set
}
