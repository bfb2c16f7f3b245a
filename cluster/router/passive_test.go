package router_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/storage/kafka"
)

// pair is two nodes that get the same messages at the same times of one clock: the first lets idle
// twins rest, the second never does. Whatever one asks, they must give the same answer.
type pair struct {
	t     *testing.T
	clock atomic.Int64
	logs  [2]*kafka.Embedded
	nodes [2]*node
	doors [2]*verdicts
	token uint64
}

func newPair(t *testing.T) *pair {
	p := &pair{t: t}
	p.clock.Store(time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC).UnixNano())
	for i := range p.nodes {
		p.logs[i] = openLog(t)
		p.doors[i] = &verdicts{got: make(map[uint64]host.Verdict)}
		p.start(i)
	}
	return p
}

func (p *pair) start(i int) {
	p.nodes[i] = start(p.t, p.logs[i], func(cfg *host.Config) {
		cfg.Clock = p.clock.Load
		if i == 1 {
			cfg.PassivateAfter = -1
		}
	})
}

// pass lets time pass, and every partition notice: a turn looks at the clock first and takes messages
// last, so what comes behind the second question is taken at the new time.
func (p *pair) pass(d time.Duration) {
	p.t.Helper()
	p.clock.Add(int64(d))
	for range 2 {
		for _, n := range p.nodes {
			if _, err := n.reader.Alerts(p.t.Context()); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}

// deliver gives both nodes the same messages and waits until they are released.
func (p *pair) deliver(msgs ...host.Message) {
	p.t.Helper()
	for i := range msgs {
		p.token++
		msgs[i].Token, msgs[i].Topic, msgs[i].ReceivedAt = p.token, "devices", p.clock.Load()
	}
	for i, n := range p.nodes {
		batch := make([]host.Message, len(msgs))
		for j := range msgs {
			batch[j] = msgs[j]
			batch[j].Reply = p.doors[i]
		}
		if err := n.router.Deliver(p.t.Context(), batch); err != nil {
			p.t.Fatal(err)
		}
	}
	eventually(p.t, "both nodes release everything", func() bool {
		return p.doors[0].released() == int(p.token) && p.doors[1].released() == int(p.token)
	})
}

// same waits until both nodes show the same twins and alerts, and returns the twins.
func (p *pair) same(ignore ...string) map[string]*doppelv1.Twin {
	p.t.Helper()
	opts := cmp.Options{
		protocmp.Transform(), protocmp.IgnoreFields(&doppelv1.Twin{}, "epoch"),
		protocmp.FilterMessage(&doppelv1.Counters{}, protocmp.IgnoreFields(&doppelv1.Counters{}, "duplicate")),
	}
	if len(ignore) == 0 {
		opts = opts[:2]
	}
	var twins [2]map[string]*doppelv1.Twin
	var diff string
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var alerts [2][]*doppelv1.Alert
		for i, n := range p.nodes {
			twins[i] = allTwins(p.t, n)
			var err error
			if alerts[i], err = n.reader.Alerts(p.t.Context()); err != nil {
				p.t.Fatal(err)
			}
		}
		diff = cmp.Diff(twins[1], twins[0], opts...) + cmp.Diff(alerts[1], alerts[0], opts...)
		if diff == "" {
			return twins[0]
		}
		if time.Now().After(end) {
			p.t.Fatalf("the nodes differ (-never passive +passive):\n%s", diff)
		}
	}
}

// counts are the twins, and the passive ones, of the node that lets them rest.
func (p *pair) counts() (twins, passive int64) {
	for _, v := range p.nodes[0].host.Partitions() {
		twins, passive = twins+v.Twins, passive+v.Passive
	}
	return twins, passive
}

// rests waits until so many twins are passive.
func (p *pair) rests(want int64) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%d twins are passive", want), func() bool {
		p.pass(60 * time.Millisecond) // sweeps and views go by the clock
		_, passive := p.counts()
		return passive == want
	})
}

func device(i int) string { return fmt.Sprintf("dev-%d", i) }

func (p *pair) sample(device string, seq int) host.Message {
	at := p.clock.Load()
	value := 20 + float64(seq*7%13)/10
	if seq == 40 {
		value = 90 // an alert
	}
	return host.Message{Kind: host.Telemetry, Device: []byte(device), Payload: fmt.Appendf(nil,
		`{"boot":1,"seq":%d,"time":%d,"metrics":{"temperature":%v,"on":true},"reported":{"seen":%d}}`, seq, at, value, seq/10)}
}

const devices = 60

// samples gives every device a few samples, some out of order and some twice, a second apart.
func (p *pair) samples(from, to int) {
	p.t.Helper()
	for seq := from; seq <= to; seq += 2 {
		p.pass(time.Second)
		var batch []host.Message
		for d := range devices {
			for _, s := range []int{seq + 1, seq, seq} {
				batch = append(batch, p.sample(device(d), s))
			}
		}
		p.deliver(batch...)
	}
}

// TestPassivate: idle twins become passive, are listed and read as if they were hot and stay passive
// by that, wake with their next message, and are what they would have been without all that.
func TestPassivate(t *testing.T) {
	p := newPair(t)
	p.samples(1, 60)
	p.deliver(
		host.Message{Kind: host.Status, Device: []byte(device(1)), Payload: []byte(`{"online":true,"boot":1,"session":4}`)},
		host.Message{Kind: host.Status, Device: []byte(device(2)), Payload: []byte(`{"online":false,"boot":1,"session":5}`)},
		host.Message{Kind: host.Reported, Device: []byte(device(3)), Payload: []byte(`{"firmware":"1.2.3","a":null}`)},
		host.Message{Kind: host.Telemetry, Device: []byte(device(4)), Payload: []byte(`{"boot":1,"seq":61,"time":5,"metrics":{"x":1}}`)}, // refused
		p.sample(device(5), 70), // held, and given up on below
	)
	twins := p.same()
	if _, passive := p.counts(); passive != 0 || len(twins) != devices {
		t.Fatalf("%d twins, %d passive, want %d and 0", len(twins), passive, devices)
	}

	p.pass(5 * time.Minute) // gaps and stale alerts
	eventually(t, "the gap is declared", func() bool { return p.same()[device(5)].GetCounters().GetGaps() == 1 })
	eventually(t, "data is stale", func() bool { return !p.same()[device(0)].GetOnline() })
	if _, passive := p.counts(); passive != 0 {
		t.Errorf("%d twins passive after five minutes", passive)
	}
	before := p.same()
	p.pass(6 * time.Minute)
	p.rests(devices)
	if diff := cmp.Diff(before, p.same(), protocmp.Transform()); diff != "" {
		t.Errorf("passive twins (-before +after):\n%s", diff)
	}
	if all, passive := p.counts(); all != devices || passive != devices {
		t.Errorf("%d twins, %d passive, want %d of both", all, passive, devices)
	}
	engine := p.nodes[0].host.Engine()
	if pid := engine.Registry.GetPID("twin", device(7)); pid != nil {
		t.Errorf("the actor of a passive twin is still known as %v", pid)
	}
	if _, err := p.nodes[0].reader.Twin(t.Context(), "nobody"); !errors.Is(err, host.ErrUnknownDevice) {
		t.Errorf("a device that never was: %v", err)
	}

	p.deliver(p.sample(device(7), 61), p.sample(device(8), 60), // a duplicate
		host.Message{Kind: host.Telemetry, Device: []byte(device(9)), Payload: []byte("{broken")})
	p.rests(devices - 1) // neither a duplicate nor a refused message is a sign of life
	if got := p.same()[device(7)]; got.GetSeq() != 61 || !got.GetOnline() {
		t.Errorf("a twin that woke: %v", got)
	}
	if pid := engine.Registry.GetPID("twin", device(7)); pid == nil {
		t.Error("the actor of a twin that woke is not known")
	}

	p.pass(time.Hour)
	eventually(t, "data is stale again", func() bool { return !p.same()[device(7)].GetOnline() })
	p.pass(time.Hour)
	p.rests(devices)
	p.samples(61, 80) // all of them wake; 61 is a duplicate for one, 70 held no more for another
	p.rests(0)
	p.same()
}

// TestPassiveRestart: after a restart twins come back from the log, rest again, and go on as if
// nothing had been.
func TestPassiveRestart(t *testing.T) {
	p := newPair(t)
	p.samples(1, 60)
	p.pass(5 * time.Minute)
	eventually(t, "data is stale", func() bool { return !p.same()[device(0)].GetOnline() })
	p.pass(time.Hour)
	p.rests(devices)
	p.nodes[0].stop()
	p.start(0)
	p.same("duplicates since a twin's last record are lost by design")
	p.rests(devices)
	p.same("duplicates")
	p.samples(61, 80)
	p.same("duplicates")
	p.rests(0)
	if s := p.nodes[0].host.Stats(); s.ReplayDifferences.Load() != 0 || s.Panics.Load() != 0 {
		t.Errorf("%d replay differences, %d panics", s.ReplayDifferences.Load(), s.Panics.Load())
	}
}

// TestPassiveDue: a twin that rests between its samples is woken when its data stays away.
func TestPassiveDue(t *testing.T) {
	p := newPair(t)
	for seq := 1; seq <= 12; seq++ {
		p.deliver(p.sample("hourly", seq))
		p.pass(time.Hour)
		if seq > 8 { // the interval is learned: no alert any more from sample to sample
			p.rests(1)
		}
	}
	if alerts := p.same()["hourly"].GetOpenAlerts(); len(alerts) != 0 {
		t.Fatalf("open alerts %v while samples come", alerts)
	}
	p.pass(210 * time.Minute) // with the hour above less than five intervals
	p.rests(1)
	if alerts := p.same()["hourly"].GetOpenAlerts(); len(alerts) != 0 {
		t.Fatalf("open alerts %v before it is due", alerts)
	}
	p.pass(time.Hour)
	eventually(t, "the data is stale", func() bool { return len(p.same()["hourly"].GetOpenAlerts()) == 1 })
	p.pass(time.Hour)
	p.rests(1)
	if got := p.same()["hourly"]; got.GetOnline() || len(got.GetOpenAlerts()) != 1 {
		t.Errorf("a stale twin: %v", got)
	}
}
