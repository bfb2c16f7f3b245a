package host

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// heard is what subscribers of doppel.alerts hear.
type heard struct {
	mu  sync.Mutex
	all []Transition
}

// Publish implements AlertLog.
func (h *heard) Publish(_ context.Context, t Transition, done func(error)) {
	h.mu.Lock()
	h.all = append(h.all, t)
	h.mu.Unlock()
	go done(nil)
}

func (h *heard) of(rule string) (its []alert.Alert) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.all {
		if a := h.all[i].Alert; a.Rule == rule {
			its = append(its, a)
		}
	}
	return its
}

// often is a predicate over a twin.
type often struct{ least uint64 }

// Holds implements alert.Predicate.
func (o often) Holds(of any) (bool, error) {
	t, ok := of.(*twin.Twin)
	if !ok {
		return false, errors.New("not a twin")
	}
	return !t.Online() && t.Counters().Applied >= o.least, nil
}

// everything is a silence of all alerts of a rule.
type everything string

// Holds implements alert.Predicate.
func (rule everything) Holds(of any) (bool, error) {
	v, ok := of.(*alert.View)
	return ok && v.Alert.Rule == string(rule), nil
}

func lifeRules(t *testing.T, ends int64) *alert.Set {
	t.Helper()
	set, err := alert.NewSet(append(
		alert.Builtin(),
		alert.Rule{
			ID: "hot", Version: 3, Kind: alert.Threshold, Metric: "t", EscalateAfter: 30 * time.Second, FlapCount: 3, FlapWindow: time.Minute,
			Levels: []alert.Level{{Severity: alert.Info, Enter: 50}, {Severity: alert.Warning, Enter: 80, Exit: 70}},
		},
		alert.Rule{ID: "tried", Kind: alert.Threshold, Metric: "t", Mode: alert.ModeShadow, Levels: []alert.Level{{Severity: alert.Critical, Enter: 60}}},
		alert.Rule{ID: "gone", Kind: alert.Expression, Expression: "!online", Predicate: often{3}, ForDuration: 5 * time.Second, Levels: []alert.Level{{Severity: alert.Info}}},
	), alert.Silence{ID: "planned", Match: everything("builtin.offline"), End: ends})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func measured(r Reply, device string, seq int, value float64) Message {
	m := sample(r, device, seq)
	m.Payload = fmt.Appendf(nil, `{"boot":1,"samples":[{"seq":%d,"time":%d,"metrics":{"t":%v,"u":1}}]}`, seq, time.Now().UnixNano(), value)
	return m
}

func connected(r Reply, device string, online bool) Message {
	return Message{
		Kind: Status, Device: []byte(device), ReceivedAt: time.Now().UnixNano(), Reply: r, Topic: "devices", Payload: fmt.Appendf(nil, `{"online":%t}`, online),
	}
}

// alertOf is the newest alert of a rule.
func alertOf(t *testing.T, h *Host, rule string) *doppelv1.Alert {
	t.Helper()
	all, err := h.Alerts(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(a *doppelv1.Alert) bool { return a.GetRule() == rule })
	if i < 0 {
		t.Fatalf("no alert of %s in %v", rule, all)
	}
	return all[i]
}

// TestAcknowledge: an acknowledgement is durable when it is answered, goes with the partition, and stops
// escalation; what is resolved, or was never there, cannot be acknowledged.
func TestAcknowledge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told heard
		p := newPlant()
		rules := lifeRules(t, 0)
		change := func(c *Config) { c.Rules, c.Alerts = rules, &told }
		a, b := p.host(t, change), p.host(t, change)
		a.Own(0)
		synctest.Wait()
		var r replies
		offer(t, a, measured(&r, "d", 1, 81), measured(&r, "e", 1, 81))
		first := alertOf(t, a, "hot")
		id := binaryID(t, first)
		k := alert.Acknowledgement{Alert: id, By: "eva", Comment: "on my way"}
		got, err := a.Acknowledge(t.Context(), 0, first.GetDevice(), k)
		if err != nil || got.GetAcknowledgedBy() != "eva" || got.GetAcknowledgeComment() != "on my way" || got.GetAcknowledgeTime() == nil {
			t.Fatalf("got %v, %v", got, err)
		}
		records := len(p.log.all())
		again, err := a.Acknowledge(t.Context(), 0, first.GetDevice(), k)
		if diff := cmp.Diff(got, again, protocmp.Transform()); err != nil || diff != "" || len(p.log.all()) != records {
			t.Errorf("the same again: %v, %d records more\n%s", err, len(p.log.all())-records, diff)
		}
		other := map[string]string{"d": "e", "e": "d"}[first.GetDevice()]
		for _, tt := range []struct {
			device string
			id     uint64
		}{{other, id}, {"nobody", id}, {first.GetDevice(), 12}} {
			if _, err := a.Acknowledge(t.Context(), 0, tt.device, alert.Acknowledgement{Alert: tt.id}); !errors.Is(err, ErrUnknownAlert) {
				t.Errorf("%s %x: %v", tt.device, tt.id, err)
			}
		}
		a.Drop(0)
		b.Own(0)
		synctest.Wait()
		time.Sleep(time.Minute)
		for _, al := range must(b.Alerts(t.Context(), 0)) {
			raised := al.GetEscalateTime() != nil
			if al.GetRule() == "hot" && raised != (al.GetDevice() == other) {
				t.Errorf("%s: raised %t: %v", al.GetDevice(), raised, al)
			}
		}
		offer(t, b, measured(&r, first.GetDevice(), 2, 20))
		if _, err := b.Acknowledge(t.Context(), 0, first.GetDevice(), k); !errors.Is(err, ErrAlertResolved) {
			t.Errorf("of a resolved one: %v", err)
		}
		time.Sleep(time.Second)                     // the view is made once a tick
		if v := b.Partition(0); v.OpenAlerts != 1 { // of the other device; those in shadow do not count
			t.Errorf("%d open alerts, want 1", v.OpenAlerts)
		}
		tw, err := b.Twin(t.Context(), 0, other)
		if err != nil || len(tw.GetOpenAlerts()) != 1 {
			t.Errorf("open alerts %v, %v, want the one that is live", tw.GetOpenAlerts(), err)
		}
		if got := told.of("tried"); len(got) > 0 {
			t.Errorf("told of a rule in shadow: %v", got)
		}
		if al := alertOf(t, b, "tried"); !al.GetShadow() {
			t.Errorf("not in shadow: %v", al)
		}
		b.Drop(0)
		synctest.Wait()
	})
}

func binaryID(t *testing.T, a *doppelv1.Alert) (id uint64) {
	t.Helper()
	if _, err := fmt.Sscanf(a.GetId(), "%016x", &id); err != nil {
		t.Fatal(err)
	}
	return id
}

// must is for what a test needs and does not test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestExplain: whatever happens to a device, in whichever order and under whichever owner, the log tells every
// alert again as it was recorded, and the twin.
func TestExplain(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) { explainRun(t, seed) })
	}
}

func explainRun(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := newPlant()
	var told heard
	rules := lifeRules(t, time.Now().Add(2*time.Minute).UnixNano())
	change := func(c *Config) { c.Rules, c.Alerts, c.PassivateAfter = rules, &told, 20*time.Second }
	hosts := []*Host{p.host(t, change), p.host(t, change)}
	at := 0
	hosts[at].Own(0)
	synctest.Wait()
	var r replies
	seq := 0
	for range 120 {
		h := hosts[at]
		switch n := rng.IntN(20); {
		case n < 12:
			seq++
			offer(t, h, measured(&r, "d", seq, 20+float64(rng.IntN(4))*22))
		case n < 14:
			offer(t, h, connected(&r, "d", n == 12))
		case n < 17:
			time.Sleep(time.Duration(rng.IntN(40)) * time.Second)
		case n < 19:
			all, err := h.Alerts(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range all {
				if a.GetState() != doppelv1.AlertState_RESOLVED {
					if _, err := h.Acknowledge(t.Context(), 0, "d", alert.Acknowledgement{Alert: binaryID(t, a), By: strconv.Itoa(n)}); err != nil {
						t.Errorf("seed %d: acknowledge %v: %v", seed, a, err)
					}
				}
			}
		default:
			h.Drop(0)
			at = 1 - at
			hosts[at].Own(0)
			synctest.Wait()
		}
		time.Sleep(time.Second)
	}
	h := hosts[at]
	all, err := h.Alerts(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		e, err := h.Explain(t.Context(), 0, "d", a.GetId())
		if err != nil {
			t.Errorf("seed %d: explain %v: %v", seed, a, err)
			continue
		}
		if diff := cmp.Diff(a, e.GetRecomputed(), protocmp.Transform()); diff != "" || !e.GetEqual() {
			t.Errorf("seed %d: equal %t, alert (-listed +recomputed):\n%s", seed, e.GetEqual(), diff)
		}
		checkEvidence(t, a, e.GetEvidence())
	}
	if re, err := h.Replay(t.Context(), 0, "d"); err != nil || !re.Equal {
		t.Errorf("seed %d: replay: %v, %s", seed, err, re.Difference)
	}
	if _, err := h.Explain(t.Context(), 0, "d", "00000000000000aa"); !errors.Is(err, ErrUnknownAlert) {
		t.Errorf("an alert that never was: %v", err)
	}
	if n := h.Stats().ReplayDifferences.Load(); n > 0 || len(all) == 0 {
		t.Errorf("seed %d: %d alerts, %d differences in restores", seed, len(all), n)
	}
	h.Drop(0)
	synctest.Wait()
}

// checkEvidence demands the reading that an alert of a metric names, and an order.
func checkEvidence(t *testing.T, a *doppelv1.Alert, points []*doppelv1.Point) {
	t.Helper()
	if !slices.IsSortedFunc(points, func(x, y *doppelv1.Point) int { return int(x.GetSeq()) - int(y.GetSeq()) }) {
		t.Errorf("evidence out of order: %v", points)
	}
	if a.GetMetric() == "" {
		return
	}
	i := slices.IndexFunc(points, func(p *doppelv1.Point) bool { return p.GetSeq() == a.GetSeq() && p.GetBoot() == a.GetBoot() })
	if i < 0 || points[i].GetValue() != a.GetValue() {
		t.Errorf("no evidence of sample %d of %v in %v", a.GetSeq(), a, points)
	}
}
