package router_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/remote"
	"github.com/doppel-iot/doppel/cluster/router"
)

// startRemote starts a node-to-node server on loopback that ends with the test.
func startRemote(t testing.TB) *remote.Remote {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := remote.New(remote.Config{Address: l.Addr().String()})
	server := grpc.NewServer(r.ServerOptions()...)
	r.Register(server)
	if _, err := r.NewEngine(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		r.Stop().Wait()
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return r
}

// prompt are partitions that release everything every 3 ms, as a log does.
type prompt struct {
	mu   sync.Mutex
	held []host.Message
}

func (o *prompt) Push(context.Context, int32, []host.Message) error { panic("not to be used") }
func (o *prompt) Takes(int32, time.Duration) error                  { return nil }
func (o *prompt) Partition(int32) host.View                         { return host.View{State: host.Serving} }

func (o *prompt) Offer(_ context.Context, _ int32, msgs []host.Message, _ time.Duration) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held = append(o.held, msgs...)
	return nil
}

func (o *prompt) run(ctx context.Context) {
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	var held []host.Message
	tokens := make([]uint64, 0, 1024)
	for ctx.Err() == nil {
		<-tick.C
		o.mu.Lock()
		held, o.held = o.held, held[:0]
		o.mu.Unlock()
		for len(held) > 0 {
			n := 0
			for ; n < len(held) && n < cap(tokens) && held[n].Reply == held[0].Reply; n++ {
				tokens = append(tokens, held[n].Token)
			}
			held[0].Reply.Done(tokens, host.Released)
			held, tokens = held[n:], tokens[:0]
		}
	}
}

// tally counts verdicts.
type tally struct{ released, other atomic.Int64 }

func (c *tally) Done(tokens []uint64, v host.Verdict) {
	if v == host.Released {
		c.released.Add(int64(len(tokens)))
	} else {
		c.other.Add(int64(len(tokens)))
	}
}

// BenchmarkHop sends messages of about 100 bytes from one node to the partitions of another, over
// loopback, in batches as a door delivers them. cpu-ns/msg has both ends, with the way back of the
// verdicts; the rate bounds what is
// delivered, 0: not; what stays on the node shows what of that is the rate's own.
func BenchmarkHop(b *testing.B) {
	for _, bb := range []struct {
		batch, rate int
		local       bool
	}{{1, 0, false}, {16, 0, false}, {256, 0, false}, {2, 2500, true}, {2, 2500, false}, {8, 20000, true}, {8, 20000, false}} {
		b.Run(fmt.Sprintf("batch=%d/rate=%d/local=%t", bb.batch, bb.rate, bb.local), func(b *testing.B) {
			const partitions = 64
			from, to := startRemote(b), startRemote(b)
			owners := &prompt{}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			go owners.run(ctx)
			ingest := &ingest{}
			ingest.auto.Store(true)
			sender := router.New(router.Config{
				Owners: owners, Partitions: partitions, Ingest: ingest, Wire: from,
				Route: func(int32) router.Route { return router.Route{Local: bb.local, Address: to.Address()} },
			})
			receiver := router.New(router.Config{
				Owners: owners, Partitions: partitions, Ingest: ingest, Wire: to,
				Route: func(int32) router.Route { return router.Route{Local: true} },
			})
			defer sender.Close()
			defer receiver.Close()
			var got tally
			msgs := make([]host.Message, bb.batch)
			at := 0
			deliver := func() {
				for i := range msgs {
					msgs[i] = host.Message{
						Kind: host.Telemetry, Device: ids[at%len(ids)], Payload: load, ContentType: "application/json",
						ReceivedAt: 1 << 60, Topic: "devices", Reply: &got, Token: uint64(at),
					}
					at++
				}
				if err := sender.Deliver(ctx, msgs); err != nil {
					b.Fatal(err)
				}
			}
			settled := func() int { return int(got.released.Load() + got.other.Load()) }
			for !bb.local && sender.Stats().Forwarded() == 0 { // until there is a connection
				deliver()
				time.Sleep(10 * time.Millisecond)
			}
			b.ReportAllocs()
			before, start := cpu(b), at
			b.ResetTimer()
			begin := time.Now()
			for at-start < b.N {
				if bb.rate > 0 {
					ahead := time.Duration(at-start)*time.Second/time.Duration(bb.rate) - time.Since(begin)
					if ahead > 0 {
						time.Sleep(ahead)
					}
				}
				for at-settled() > 4096 {
					time.Sleep(200 * time.Microsecond)
				}
				deliver()
			}
			for settled() < at {
				time.Sleep(time.Millisecond)
			}
			b.StopTimer()
			n := float64(at - start)
			b.ReportMetric(float64(cpu(b)-before)/n, "cpu-ns/msg")
			b.ReportMetric(n/b.Elapsed().Seconds(), "msg/s")
			b.ReportMetric(float64(len(ingest.payloads())), "ingest")
		})
	}
}

var load = []byte(`{"boot":1,"seq":100,"time":1790000000000,"metrics":{"temperature":20.5,"humidity":41,"on":true}}`)

var ids = func() (all [][]byte) {
	for i := range 2000 {
		all = append(all, fmt.Appendf(nil, "device-%06d", i))
	}
	return all
}()

// cpu is the processor time of this process so far, in nanoseconds.
func cpu(b *testing.B) int64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
