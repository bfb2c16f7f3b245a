package fault

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/storage/kafka"
)

var outage = flag.Duration("outage", 12*time.Second, "how long the log is out of reach in TestOutage")

// TestOutage: while the log is out of reach nothing is acknowledged, twins can be read and say that they are
// stale, and no epoch ends; when it is back everything is durable that was taken.
func TestOutage(t *testing.T) {
	for name, begin := range map[string]func(*Proxy){
		"silent":  func(p *Proxy) { p.Stall(true, true) },
		"refused": func(p *Proxy) { p.Cut() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOutage(t)
			o.feed(20)
			o.wait("all is released", func() bool { return o.open() == 0 })

			begin(o.proxy)
			time.Sleep(time.Second) // what was answered already may arrive
			before := o.released()
			for from := time.Now(); time.Since(from) < *outage; {
				o.feed(1)
				if time.Since(from) > 4*time.Second { // before, the log was looked at not long ago
					o.reads(true)
				}
				time.Sleep(100 * time.Millisecond)
			}
			if got := o.released(); got != before {
				t.Errorf("%d messages acknowledged while the log was out of reach", got-before)
			}
			o.proxy.Heal()
			o.wait("all is released", func() bool { return o.open() == 0 })
			o.reads(false)
			o.feed(20)
			o.wait("all is released", func() bool { return o.open() == 0 })
			if n := o.host.Stats().Fenced.Load(); n != 0 {
				t.Errorf("%d epochs ended", n)
			}
			o.counts()
		})
	}
}

const (
	outagePartitions = 2
	outageDevices    = 6
)

// outageRig is a host behind a proxy to its log.
type outageRig struct {
	t     *testing.T
	proxy *Proxy
	host  *host.Host
	seq   uint64

	mu   sync.Mutex
	sent map[uint64]bool // tokens; true: released
	done int
}

func newOutage(t *testing.T) *outageRig {
	t.Helper()
	log, err := kafka.OpenEmbedded(kafka.EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := NewProxy(t.Context(), log.Addr(), false)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kafka.Open(t.Context(), kafka.Config{
		Brokers: []string{log.Addr()}, Partitions: outagePartitions, Embedded: true,
		Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, proxy.Addr())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var nonce atomic.Uint64
	h, err := host.New(host.Config{
		Node: "n", Partitions: outagePartitions, Changelog: client.Changelog(), State: client.State(), Ingest: client.Ingest(),
		DeadLetters: client.DeadLetters(), Alerts: client.AlertLog(), CheckpointAfter: time.Second, Logger: slog.New(slog.DiscardHandler),
		Clock: func() int64 { return time.Now().UnixNano() }, Nonce: func() uint64 { return nonce.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx, []int32{0, 1}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		_ = client.Close()
		proxy.Close()
		_ = log.Close()
	})
	o := &outageRig{t: t, proxy: proxy, host: h, sent: make(map[uint64]bool)}
	o.wait("both partitions serve", func() bool { n, _ := h.Restored(); return n == outagePartitions })
	return o
}

// Done implements host.Reply.
func (o *outageRig) Done(tokens []uint64, v host.Verdict) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, token := range tokens {
		if v != host.Released || o.sent[token] {
			o.t.Errorf("message %d: verdict %d", token, v)
			continue
		}
		o.sent[token] = true
		o.done++
	}
}

func (o *outageRig) released() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.done
}

func (o *outageRig) open() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.sent) - o.done
}

// feed sends some samples of each device.
func (o *outageRig) feed(samples int) {
	o.t.Helper()
	for range samples {
		o.seq++
		for d := range outageDevices {
			token := o.seq*100 + uint64(d)
			o.mu.Lock()
			o.sent[token] = false
			o.mu.Unlock()
			m := host.Message{
				Kind: host.Telemetry, Device: fmt.Appendf(nil, "d%d", d), ReceivedAt: time.Now().UnixNano(), Reply: o, Token: token, Topic: "devices",
				Payload: fmt.Appendf(nil, `{"boot":1,"samples":[{"seq":%d,"metrics":{"t":%d}}]}`, o.seq, o.seq%50),
			}
			if err := o.host.Push(o.t.Context(), int32(d%outagePartitions), []host.Message{m}); err != nil {
				o.t.Errorf("push: %v", err)
			}
		}
	}
}

// reads reads every twin.
func (o *outageRig) reads(stale bool) {
	o.t.Helper()
	for d := range outageDevices {
		begin := time.Now()
		tw, err := o.host.Twin(o.t.Context(), int32(d%outagePartitions), fmt.Sprintf("d%d", d))
		if took := time.Since(begin); err != nil || tw.GetStale() != stale || took > 2500*time.Millisecond {
			o.t.Errorf("d%d: %v, stale %t after %v, want %t", d, err, tw.GetStale(), took, stale)
		}
	}
}

// counts says that every sample took effect once.
func (o *outageRig) counts() {
	o.t.Helper()
	for d := range outageDevices {
		tw, err := o.host.Twin(o.t.Context(), int32(d%outagePartitions), fmt.Sprintf("d%d", d))
		c := tw.GetCounters()
		if err != nil || c.GetApplied() != o.seq || c.GetLate()+c.GetDuplicate() != 0 {
			o.t.Errorf("d%d: %v, %d applied, %d late, %d duplicate, want %d applied", d, err, c.GetApplied(), c.GetLate(), c.GetDuplicate(), o.seq)
		}
	}
}

func (o *outageRig) wait(what string, ok func() bool) {
	o.t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			o.t.Fatalf("not within a minute: %s", what)
		}
	}
}
