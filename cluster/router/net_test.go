package router_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/router"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// fate is what becomes of a message on a network.
type fate struct {
	err   error // of Tell
	drop  bool
	twice bool
	delay time.Duration
}

// network carries messages between nodes of this process, in order between any two.
type network struct {
	mu     sync.Mutex
	wires  map[string]*wire
	fault  func(from, to, name string, m proto.Message) fate // nil: none
	silent map[string]time.Time                              // nodes that nobody hears of since then
	links  map[[2]string]chan parcel
	ended  bool
	done   sync.WaitGroup
}

type parcel struct {
	at   time.Time
	name string
	m    proto.Message
}

// newNetwork returns one that ends with the test; it belongs into the bubble of synctest, if there is one.
func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{wires: make(map[string]*wire), silent: make(map[string]time.Time), links: make(map[[2]string]chan parcel)}
	t.Cleanup(func() {
		n.mu.Lock()
		n.ended = true
		for _, l := range n.links {
			close(l)
		}
		n.mu.Unlock()
		n.done.Wait()
	})
	return n
}

func (n *network) set(fault func(from, to, name string, m proto.Message) fate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fault = fault
}

// silence makes a node unheard of, or heard of again.
func (n *network) silence(address string, silent bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if silent {
		n.silent[address] = time.Now()
	} else {
		delete(n.silent, address)
	}
}

func (n *network) wire(address string) *wire {
	w := &wire{n: n, address: address, handlers: make(map[string]func(string, proto.Message))}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wires[address] = w
	return w
}

// wire is the network as one node sees it.
type wire struct {
	n        *network
	address  string
	handlers map[string]func(string, proto.Message)
}

// Tell implements router.Wire.
func (w *wire) Tell(address, name string, m proto.Message) error {
	n := w.n
	n.mu.Lock()
	defer n.mu.Unlock()
	var f fate
	if n.fault != nil {
		f = n.fault(w.address, address, name, m)
	}
	if f.err != nil || f.drop || n.ended {
		return f.err
	}
	key := [2]string{w.address, address}
	link := n.links[key]
	if link == nil {
		link = make(chan parcel, 1<<16)
		n.links[key] = link
		n.done.Go(func() { n.run(link, w.address, address) })
	}
	at := parcel{time.Now().Add(f.delay), name, proto.Clone(m)}
	link <- at
	if f.twice {
		link <- at
	}
	return nil
}

// TellEncoded implements router.Wire: on its way the request is as any other message.
func (w *wire) TellEncoded(address, name, kind string, b []byte) error {
	var m doppelv1.DeliverRequest
	if kind != string(m.ProtoReflect().Descriptor().FullName()) {
		return fmt.Errorf("a message of type %s", kind)
	}
	if err := proto.Unmarshal(b, &m); err != nil {
		return err
	}
	return w.Tell(address, name, &m)
}

// HandleEncoded implements router.Wire.
func (w *wire) HandleEncoded(name, _ string, fn func(string, []byte) error) {
	w.Handle(name, func(from string, m proto.Message) {
		b, err := proto.Marshal(m)
		if err == nil {
			err = fn(from, b)
		}
		if err != nil {
			panic(err)
		}
	})
}

func (n *network) run(link chan parcel, from, to string) {
	for at := range link {
		if d := time.Until(at.at); d > 0 {
			time.Sleep(d)
		}
		n.mu.Lock()
		fn := n.wires[to].handlers[at.name]
		n.mu.Unlock()
		if fn != nil {
			fn(from, at.m)
		}
	}
}

// Handle implements router.Wire.
func (w *wire) Handle(name string, fn func(string, proto.Message)) {
	w.n.mu.Lock()
	defer w.n.mu.Unlock()
	w.handlers[name] = fn
}

// Heard implements router.Wire: there is always a heartbeat of a node that is not silent.
func (w *wire) Heard(address string) time.Time {
	w.n.mu.Lock()
	defer w.n.mu.Unlock()
	if at, ok := w.n.silent[address]; ok {
		return at
	}
	return time.Now()
}

// plots are the partitions of one node of a network.
type plots struct {
	mu      sync.Mutex
	serving map[int32]bool
	err     error         // of Offer
	full    bool          // an Offer waits in vain
	keep    bool          // nothing is released
	delay   time.Duration // until a message is released
	held    []*host.Message
	log     []string // payloads released
}

func (o *plots) Push(context.Context, int32, []host.Message) error { panic("not to be used") }
func (o *plots) Takes(p int32, _ time.Duration) error              { return o.takes(p) }

func (o *plots) Partition(p int32) host.View {
	if o.takes(p) != nil {
		return host.View{State: host.Idle}
	}
	return host.View{State: host.Serving}
}

func (o *plots) takes(p int32) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.serving[p] {
		return host.ErrUnavailable
	}
	return o.err
}

func (o *plots) Offer(ctx context.Context, p int32, msgs []host.Message, patience time.Duration) error {
	if err := o.takes(p); err != nil {
		return err
	}
	o.mu.Lock()
	full, keep, delay := o.full, o.keep, o.delay
	o.mu.Unlock()
	if full {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(patience):
			return host.ErrSaturated
		}
	}
	mine := make([]*host.Message, len(msgs))
	for i := range msgs {
		mine[i] = new(msgs[i])
	}
	o.mu.Lock()
	o.held = append(o.held, mine...)
	o.mu.Unlock()
	if !keep {
		// Not at once: Go 1.26 runs a timer of a bubble that is due when it is made on the system stack, where the
		// race detector may crash.
		time.AfterFunc(max(delay, time.Nanosecond), func() { o.settle(mine, host.Released) })
	}
	return nil
}

// settle gives those of msgs that are held their verdict.
func (o *plots) settle(msgs []*host.Message, v host.Verdict) {
	o.mu.Lock()
	var mine []*host.Message
	for _, m := range msgs {
		if at := slices.Index(o.held, m); at >= 0 {
			o.held = slices.Delete(o.held, at, at+1)
			mine = append(mine, m)
			if v == host.Released {
				o.log = append(o.log, string(m.Payload))
			}
		}
	}
	o.mu.Unlock()
	for _, m := range mine {
		m.Reply.Done([]uint64{m.Token}, v)
	}
}

// change sets fields under the mutex.
func (o *plots) change(fn func(*plots)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fn(o)
}

func (o *plots) holding() []*host.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.held)
}

func (o *plots) logged() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.log)
}

// serve makes partitions served here, and no others.
func (o *plots) serve(ids ...int32) {
	o.change(func(o *plots) {
		o.serving = make(map[int32]bool)
		for _, p := range ids {
			o.serving[p] = true
		}
	})
}

// site is a node of a network.
type site struct {
	*plots
	router *router.Router
	ingest *ingest
	wire   *wire
}

// twoSites are two nodes: all partitions are b's, and a knows it.
func twoSites(t *testing.T) (n *network, a, b *site) {
	t.Helper()
	return twoSitesWith(t, nil)
}

func twoSitesWith(t *testing.T, change func(*router.Config)) (n *network, a, b *site) {
	t.Helper()
	n = newNetwork(t)
	a = newSite(t, n, "a", func(int32) router.Route { return router.Route{Address: "b"} }, change)
	b = newSite(t, n, "b", func(int32) router.Route { return router.Route{Local: true} }, change)
	b.serve(0, 1, 2, 3)
	return n, a, b
}

func newSite(t *testing.T, n *network, address string, route func(int32) router.Route, change func(*router.Config)) *site {
	t.Helper()
	s := &site{plots: &plots{}, ingest: &ingest{}, wire: n.wire(address)}
	s.ingest.auto.Store(true)
	cfg := router.Config{Owners: s.plots, Partitions: partitions, Ingest: s.ingest, Wire: s.wire, Route: route}
	if change != nil {
		change(&cfg)
	}
	s.router = router.New(cfg)
	t.Cleanup(s.router.Close)
	return s
}
