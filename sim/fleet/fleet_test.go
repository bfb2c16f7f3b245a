package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doppel-iot/doppel/sim/device"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run connects a fleet of n devices, lets each send count samples interval apart, and gives the
// account. The configuration is completed.
func run(t *testing.T, cfg Config, n int, count uint64, interval time.Duration) (Progress, Result, []*device.Device) {
	t.Helper()
	cfg.Format = JSON
	if cfg.Settle == 0 {
		cfg.Settle = 10 * time.Second
	}
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	var sources []Source
	var devices []*device.Device
	for i := range n {
		d := device.New(device.Config{
			ID: fmt.Sprintf("d%d", i), Seed: 1, Index: uint64(i), Boot: 9, Metrics: 2,
			Start: start.UnixNano(), Interval: int64(interval), Limit: count,
		})
		devices = append(devices, d)
		sources = append(sources, d)
	}
	r := f.Run(t.Context(), sources, start.Add(time.Duration(count)*interval).UnixNano())
	return f.Progress(), r, devices
}

// numbers are the sequence numbers a broker saw of a device, in order of arrival.
func numbers(t *testing.T, seen []received, id string) []uint64 {
	t.Helper()
	var all []uint64
	for _, m := range seen {
		if m.topic != "devices/"+id+"/telemetry" {
			continue
		}
		var p struct {
			Boot, Seq uint64
			Samples   []struct{ Seq uint64 }
		}
		if err := json.Unmarshal([]byte(m.payload), &p); err != nil || p.Boot != 9 {
			continue // poison
		}
		if p.Seq != 0 {
			all = append(all, p.Seq)
		}
		for _, s := range p.Samples {
			all = append(all, s.Seq)
		}
	}
	return all
}

func upTo(n uint64) []uint64 {
	all := make([]uint64, n)
	for i := range all {
		all[i] = uint64(i) + 1
	}
	return all
}

func TestEverySampleOnceInOrder(t *testing.T) {
	t.Parallel()
	b := newFakeBroker(t, acceptAll)
	p, r, devices := run(t, Config{Broker: b.url(), Connections: 3}, 7, 20, 10*time.Millisecond)
	if p.Sent != 140 || p.Acked != 140 || p.Messages != 140 || p.Inflight != 0 {
		t.Errorf("account: %+v", p)
	}
	conns := make(map[string]map[int]bool)
	for _, m := range b.messages() {
		if conns[m.topic] == nil {
			conns[m.topic] = make(map[int]bool)
		}
		conns[m.topic][m.conn] = true
	}
	for i, d := range devices {
		if got := numbers(t, b.messages(), d.ID()); !slices.Equal(got, upTo(20)) {
			t.Errorf("device %s: %v", d.ID(), got)
		}
		if len(conns["devices/"+d.ID()+"/telemetry"]) != 1 {
			t.Errorf("device %s used several connections", d.ID())
		}
		if len(r.Devices[i].Unacked) != 0 {
			t.Errorf("device %s: unacknowledged %v", d.ID(), r.Devices[i].Unacked)
		}
	}
	if p.Latency.TotalCount() != 140 {
		t.Errorf("%d latencies", p.Latency.TotalCount())
	}
}

func TestBatches(t *testing.T) {
	t.Parallel()
	b := newFakeBroker(t, acceptAll)
	p, _, devices := run(t, Config{Broker: b.url(), Batch: 8}, 2, 20, time.Millisecond)
	if p.Sent != 40 || p.Acked != 40 || p.Messages != 6 {
		t.Errorf("want 40 samples in 6 messages: %+v", p)
	}
	for _, d := range devices {
		if got := numbers(t, b.messages(), d.ID()); !slices.Equal(got, upTo(20)) {
			t.Errorf("device %s: %v", d.ID(), got)
		}
	}
}

// The broker cuts the connection with messages unanswered: all of them come again, oldest first and
// before anything new.
func TestResendInOrderAfterCut(t *testing.T) {
	t.Parallel()
	taken := 0
	b := newFakeBroker(t, func(m received) (byte, bool, bool) {
		taken++
		return 0, taken == 60, m.conn == 0 && taken > 20
	})
	p, r, devices := run(t, Config{Broker: b.url()}, 3, 50, 2*time.Millisecond)
	if p.Acked != 150 || p.Sent != 150 || p.Resent < 40 {
		t.Errorf("account: %+v", p)
	}
	seen := b.messages()
	for i, d := range devices {
		if len(r.Devices[i].Unacked) != 0 {
			t.Errorf("unacknowledged: %v", r.Devices[i].Unacked)
		}
		var first, second []uint64
		for _, m := range seen {
			one := numbers(t, []received{m}, d.ID())
			if m.conn == 0 {
				first = append(first, one...)
			} else {
				second = append(second, one...)
			}
		}
		if !slices.IsSorted(first) || !slices.IsSorted(second) {
			t.Errorf("device %s out of order: %v, then %v", d.ID(), first, second)
		}
		both := append(slices.Clone(first), second...)
		slices.Sort(both)
		if got := slices.Compact(both); !slices.Equal(got, upTo(50)) {
			t.Errorf("device %s: %v", d.ID(), got)
		}
		if len(second) == 0 || second[0] > first[len(first)-1] {
			t.Errorf("device %s: nothing came again: %v, then %v", d.ID(), first, second)
		}
	}
}

// A message the broker refuses, or has nobody to give to, is not acknowledged.
func TestRefusedIsSentAgain(t *testing.T) {
	t.Parallel()
	for _, reason := range []byte{0x97, reasonUnrouted} {
		t.Run(fmt.Sprintf("0x%02x", reason), func(t *testing.T) {
			t.Parallel()
			refused := false
			b := newFakeBroker(t, func(received) (byte, bool, bool) {
				if !refused {
					refused = true
					return reason, false, false
				}
				return 0, false, false
			})
			p, _, devices := run(t, Config{Broker: b.url()}, 1, 5, time.Millisecond)
			if p.Acked != 5 || p.Refusals != 1 || p.LastRefusal != reason || p.Resent == 0 {
				t.Errorf("account: %+v", p)
			}
			all := numbers(t, b.messages(), devices[0].ID())
			if !slices.Equal(all[len(all)-5:], upTo(5)) {
				t.Errorf("the second time: %v", all)
			}
		})
	}
}

// Without PUBACKs no more than the window is on its way, and what is left is named.
func TestWindowAndUnacknowledged(t *testing.T) {
	t.Parallel()
	b := newFakeBroker(t, func(received) (byte, bool, bool) { return 0, false, true })
	b.connack = []byte{packetConnack, 6, 0, 0, 3, propReceiveMaximum, 0, 4} // below our own window
	p, r, devices := run(t, Config{Broker: b.url(), Inflight: 10, Settle: 100 * time.Millisecond}, 1, 20, time.Millisecond)
	if got := numbers(t, b.messages(), devices[0].ID()); !slices.Equal(got, upTo(4)) {
		t.Errorf("in flight: %v, want 4", got)
	}
	if p.Acked != 0 || p.Sent != 4 {
		t.Errorf("account: %+v", p)
	}
	if taken := devices[0].Expected().Samples; taken != uint64(len(r.Devices[0].Unacked)) || r.Devices[0].Unacked[0] != 1 {
		t.Errorf("%d taken, unacknowledged %v", taken, r.Devices[0].Unacked)
	}
}

type observed struct {
	mu     sync.Mutex
	sent   map[int][]uint64
	poison [][]byte
}

func (o *observed) Sent(dev int, first uint64, count int, at int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range count {
		o.sent[dev] = append(o.sent[dev], first+uint64(i))
	}
	if time.Since(time.Unix(0, at)).Abs() > time.Minute {
		panic("time of sending is not now")
	}
}

func (o *observed) Poisoned(payload []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.poison = append(o.poison, payload)
}

func TestFaults(t *testing.T) {
	t.Parallel()
	b := newFakeBroker(t, acceptAll)
	o := &observed{sent: make(map[int][]uint64)}
	p, r, devices := run(t, Config{
		Broker: b.url(), Connections: 2, Seed: 3, Observer: o,
		Faults: Faults{Dup: 0.2, Reorder: 0.2, Poison: 0.1},
	}, 4, 200, 5*time.Millisecond)
	if p.Acked != 800 || p.Duplicates < 80 || p.Swapped < 80 || p.PoisonAcked < 40 || p.PoisonAcked != uint64(len(o.poison)) {
		t.Errorf("account: %+v, %d poisons observed", p, len(o.poison))
	}
	swaps, swapped := 0, uint64(0)
	for i, d := range devices {
		got := numbers(t, b.messages(), d.ID())
		highest := uint64(0)
		for k, n := range got {
			if n < highest && !slices.Contains(got[:k], n) {
				swaps++
				if highest-n > 32 {
					t.Errorf("number %d behind %d", n, highest)
				}
			}
			highest = max(highest, n)
		}
		if !slices.Equal(slices.Sorted(slices.Values(o.sent[i])), upTo(200)) {
			t.Errorf("observed: %v", o.sent[i])
		}
		slices.Sort(got)
		if unique := slices.Compact(got); !slices.Equal(unique, upTo(200)) {
			t.Errorf("device %s: %v", d.ID(), unique)
		}
		swapped += r.Devices[i].Swapped
	}
	if uint64(swaps) != p.Swapped || swapped != p.Swapped {
		t.Errorf("%d swaps arrived, %d counted, %d by device", swaps, p.Swapped, swapped)
	}
	for _, payload := range o.poison {
		if !slices.ContainsFunc(b.messages(), func(m received) bool { return m.payload == string(payload) }) {
			t.Errorf("poison %.80q did not arrive", payload)
		}
	}
}

func TestDropConnLosesNothing(t *testing.T) {
	t.Parallel()
	b := newFakeBroker(t, acceptAll)
	p, _, devices := run(t, Config{Broker: b.url(), Connections: 2, Faults: Faults{DropConn: 1}}, 2, 250, 10*time.Millisecond)
	if p.Cuts < 2 || p.Acked != 500 {
		t.Errorf("account: %+v", p)
	}
	for _, d := range devices {
		got := numbers(t, b.messages(), d.ID())
		slices.Sort(got)
		if unique := slices.Compact(got); !slices.Equal(unique, upTo(250)) {
			t.Errorf("device %s: %v", d.ID(), unique)
		}
	}
}

func TestUnpacedSharesTheConnection(t *testing.T) {
	t.Parallel()
	b := newFakeBroker(t, acceptAll)
	f, err := New(Config{Broker: b.url(), Inflight: 16, Format: JSON})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	var sources []Source
	for i := range 5 {
		sources = append(sources, device.New(device.Config{ID: fmt.Sprintf("d%d", i), Index: uint64(i), Boot: 9, Metrics: 1}))
	}
	f.Run(t.Context(), sources, time.Now().Add(200*time.Millisecond).UnixNano())
	p := f.Progress()
	if p.Acked < 100 || p.Sent != p.Acked {
		t.Errorf("account: %+v", p)
	}
	for i := range 5 {
		got := numbers(t, b.messages(), fmt.Sprintf("d%d", i))
		if math.Abs(float64(len(got))-float64(p.Sent)/5) > 1 || !slices.Equal(got, upTo(uint64(len(got)))) {
			t.Errorf("device %d sent %d of %d", i, len(got), p.Sent)
		}
	}
}

func TestStopEndsEarly(t *testing.T) {
	t.Parallel()
	b := newFakeBroker(t, acceptAll)
	f, err := New(Config{Broker: b.url(), Format: JSON, Batch: 50})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	d := device.New(device.Config{ID: "d0", Boot: 9, Metrics: 1, Start: time.Now().UnixNano(), Interval: int64(time.Millisecond)})
	r := f.Run(ctx, []Source{d}, time.Now().Add(time.Hour).UnixNano())
	// The half-full batch goes out too.
	if got := numbers(t, b.messages(), "d0"); len(r.Devices[0].Unacked) != 0 || !slices.Equal(got, upTo(d.Expected().Samples)) {
		t.Errorf("%d taken, %v sent, unacknowledged %v", d.Expected().Samples, got, r.Devices[0].Unacked)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	f, err := New(Config{Broker: "mqtt://" + address})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := f.Connect(ctx); !errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v, want ErrUnreachable", err)
	}

	b := newFakeBroker(t, acceptAll)
	b.connack = []byte{packetConnack, 3, 0, 0x87, 0}
	f, err = New(Config{Broker: b.url()})
	if err != nil {
		t.Fatal(err)
	}
	err = f.Connect(t.Context())
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Reason != 0x87 {
		t.Errorf("error %v, want refusal 0x87", err)
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Broker: "http://x:1"}, "want mqtt://"},
		{Config{Broker: "mqtt://"}, "no host"},
		{Config{Broker: "mqtt://h", Connections: -1}, "connections"},
		{Config{Broker: "mqtt://h", Inflight: 70000}, "inflight"},
		{Config{Broker: "mqtt://h", Batch: 1001}, "batch"},
		{Config{Broker: "mqtt://h", Batch: 33, Faults: Faults{Reorder: 0.1}}, "reorder"},
		{Config{Broker: "mqtt://h", Format: "xml"}, "format"},
	} {
		if _, err := New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want one with %q", c.cfg, err, c.want)
		}
	}
}
