package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/doppel-iot/doppel/sim/device"
)

// ErrUnreachable is a broker that could not be connected to at the start.
var ErrUnreachable = errors.New("broker unreachable")

// Fleet publishes for devices over its connections. Use it once.
type Fleet struct {
	cfg   Config
	conns []*conn
	stop  chan struct{}
	once  sync.Once
}

// New checks the configuration; it connects to nothing.
func New(cfg Config) (*Fleet, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	e, err := parseBroker(cfg.Broker, cfg.TLS)
	if err != nil {
		return nil, err
	}
	if cfg.User != "" {
		e.user, e.password = cfg.User, cfg.Password
	}
	f := &Fleet{cfg: cfg, stop: make(chan struct{})}
	for i := range cfg.Connections {
		f.conns = append(f.conns, newConn(cfg, e, fmt.Sprintf("%s-%d", cfg.ClientID, i), i))
	}
	return f, nil
}

// Connect opens all connections. It tries until ctx ends.
func (f *Fleet) Connect(ctx context.Context) error {
	for i, c := range f.conns {
		for {
			err := c.open(ctx)
			if err == nil {
				break
			}
			var refused *RefusedError
			if ctx.Err() != nil || errors.As(err, &refused) {
				f.leave(i)
				return fmt.Errorf("%w: %s: %w", ErrUnreachable, c.endpoint.address, err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

func (f *Fleet) leave(opened int) {
	for _, c := range f.conns[:opened] {
		c.link.leave()
		<-c.link.ended
	}
}

// Run sends the samples of all sources that are due before until (unix nanoseconds), waits for
// their acknowledgements, and gives the final account. Connect comes first. When ctx ends, no
// new samples are taken, and what was taken is still given the time of Config.Settle.
func (f *Fleet) Run(ctx context.Context, sources []Source, until int64) Result {
	senders := f.distribute(sources, until)
	hard, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()

	var conns sync.WaitGroup
	for _, c := range f.conns {
		conns.Go(func() { c.run(hard, f.stop) })
	}
	done := make(chan struct{})
	go func() {
		conns.Wait()
		close(done)
	}()

	// Who is behind schedule at the end still takes what was due; who cannot, stops.
	f.await(ctx, done, time.Until(time.Unix(0, until))+f.cfg.Settle)
	f.once.Do(func() { close(f.stop) })
	f.await(hard, done, f.cfg.Settle)
	abort()
	<-done
	return f.result(senders)
}

func (f *Fleet) await(ctx context.Context, done <-chan struct{}, limit time.Duration) {
	select {
	case <-done:
	case <-ctx.Done():
	case <-time.After(limit):
	}
}

// distribute pins every device to a connection.
func (f *Fleet) distribute(sources []Source, until int64) []*sender {
	senders := make([]*sender, len(sources))
	for i, s := range sources {
		d := &sender{source: s, index: i, topic: []byte(f.cfg.TopicRoot + "/" + s.ID() + "/telemetry")}
		senders[i] = d
		c := f.conns[i%len(f.conns)]
		if o, ok := s.(Obedient); ok && f.cfg.Interactive {
			c.obedient[s.ID()] = &listener{sender: d, source: o}
		}
		c.until = until
		at := s.Due()
		if at == device.Unpaced {
			c.unpaced = true
			at = c.takeTurn()
		}
		if at < until {
			c.devices.push(at, d)
		}
	}
	return senders
}

// Progress is the account so far. Call it from one goroutine.
func (f *Fleet) Progress() Progress {
	p := Progress{Latency: newHistogram()}
	for _, c := range f.conns {
		c.collect(&p)
	}
	return p
}

// Result is what became of a run.
type Result struct {
	Devices []DeviceResult // in the order of the sources
}

// DeviceResult is the account of one device, in samples.
type DeviceResult struct {
	// Unacked lists the numbers that were taken and never acknowledged.
	Unacked []uint64
	// Swapped is how many were sent behind a later one on purpose.
	Swapped uint64
}

// result lists what was left behind; the connections have ended.
func (f *Fleet) result(senders []*sender) Result {
	r := Result{Devices: make([]DeviceResult, len(senders))}
	leave := func(d *sender, first uint64, n int) {
		for k := range n {
			list := &r.Devices[d.index].Unacked
			*list = append(*list, first+uint64(k))
		}
	}
	for _, c := range f.conns {
		for n := c.window.head; n < c.window.tail; n++ {
			if s := c.window.at(n); !s.acked && s.kind == sampleMessage {
				leave(s.device, s.first, s.samples)
			}
		}
		for _, item := range c.later.items {
			if m := item.value; m.kind == sampleMessage {
				leave(m.device, m.first, m.samples)
			}
		}
	}
	for i, d := range senders {
		r.Devices[i].Swapped = d.swapped
		if d.held != nil {
			leave(d, d.held.first, d.held.samples)
		}
		for _, m := range d.stored {
			leave(d, m.first, m.samples)
		}
		for _, s := range d.pending {
			leave(d, s.Seq, 1)
		}
	}
	return r
}
