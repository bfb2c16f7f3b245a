package fault

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// evidence is what a healthy system leaves: a log of one partition with two epochs, its alerts, what its
// node shows, and its accounts.
type evidence struct {
	log    records
	alerts records
	parts  []*doppelv1.PartitionAudit
	twins  map[string]*doppelv1.Twin
	counts map[string]float64
}

// scribe writes a changelog as an owner does.
type scribe struct {
	t        *testing.T
	rules    *alert.Set
	twins    map[string]*twin.Twin
	epoch, n uint64
	now      int64
	log      []*kgo.Record
	alerts   []*kgo.Record
}

func (s *scribe) append(key string, ev *codec.Event) {
	r := &kgo.Record{Offset: int64(len(s.log)), Value: codec.AppendEvent(nil, ev)}
	if key != "" {
		r.Key = []byte(key)
	}
	s.log = append(s.log, r)
}

func (s *scribe) claim() {
	s.epoch, s.n = uint64(len(s.log)), 0
	s.append("", &codec.Event{Kind: doppelv1.EventKind_EVENT_KIND_CLAIM, Now: s.now, Claim: &codec.Claim{Node: "n"}})
}

func (s *scribe) sample(device string, seq uint64, value float64) {
	s.now += 1e9
	s.n++
	ev := &codec.Event{Kind: doppelv1.EventKind_EVENT_KIND_SAMPLE, Epoch: s.epoch, N: s.n, Now: s.now}
	ev.Input = twin.Input{Kind: twin.KindSample, ReceivedAt: s.now, Sample: twin.Sample{
		Boot: 1, Seq: seq, Time: s.now, Numbered: true, Timed: true, Readings: []twin.Reading{{Name: "v", Value: value}},
	}}
	t := s.twins[device]
	if t == nil {
		t = twin.New(device, s.now)
		s.twins[device] = t
	}
	t.Step(s.now, &ev.Input, s.rules, &ev.Effects)
	ev.Digest, ev.SetDigest, ev.Version = t.Digest(), t.SetDigest(), t.Version()
	for i := range ev.Effects.Transitions {
		value, err := proto.Marshal(codec.Alert(device, &ev.Effects.Transitions[i]))
		if err != nil {
			s.t.Fatal(err)
		}
		pos := position{0, int64(len(s.log)), i}.String()
		s.alerts = append(s.alerts, &kgo.Record{Value: value, Headers: []kgo.RecordHeader{{Key: "pos", Value: []byte(pos)}}})
	}
	s.append(device, ev)
}

// healthy is evidence with nothing wrong: two devices, one of which raises an alert that resolves again.
func healthy(t *testing.T) *evidence {
	t.Helper()
	rules, err := alert.NewSet(alert.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	s := &scribe{t: t, rules: rules, twins: make(map[string]*twin.Twin), now: 1795341600e9}
	s.claim()
	for seq := range uint64(100) {
		if seq == 50 {
			s.claim()
		}
		for i, device := range []string{"a", "b"} {
			v := math.Sin(float64(seq)) + float64(i)
			if seq == 80 && i == 0 {
				v = 1000
			}
			s.sample(device, seq+1, v)
		}
	}
	e := &evidence{
		log: records{0: s.log}, alerts: records{0: s.alerts}, twins: make(map[string]*doppelv1.Twin),
		counts: map[string]float64{"doppel_samples_received_total": 200, `doppel_samples_total{result="applied"}`: 200},
	}
	sum := uint64(0)
	for id, tw := range s.twins {
		e.twins[id] = codec.Twin(tw)
		sum += tw.Hash()
	}
	e.parts = []*doppelv1.PartitionAudit{{Twins: 2, StateHash: sum, NextOffset: uint64(len(s.log))}}
	return e
}

// judge is what a court makes of evidence.
func (e *evidence) judge(t *testing.T) []string {
	t.Helper()
	folds, err := foldLog(e.log, nil)
	if err != nil {
		t.Fatal(err)
	}
	found, err := readAlerts(e.alerts)
	if err != nil {
		t.Fatal(err)
	}
	v := &verdict{}
	v.replay(folds)
	v.hashes(folds, e.parts)
	v.twins(folds, e.twins)
	v.alerts(folds, found)
	v.balance(e.counts)
	return v.findings
}

func TestVerdictOfHealth(t *testing.T) {
	e := healthy(t)
	if findings := e.judge(t); len(findings) > 0 {
		t.Errorf("findings: %q", findings)
	}
	if len(e.alerts[0]) < 2 {
		t.Errorf("%d alert transitions: this evidence shows too little", len(e.alerts[0]))
	}
	e.twins["a"].Counters.Duplicate = 7 // lost in a crash by design
	e.alerts[0] = append(e.alerts[0], e.alerts[0][0])
	if findings := e.judge(t); len(findings) > 0 {
		t.Errorf("duplicates and an alert published twice are fine, but: %q", findings)
	}
}

// TestVerdictCanFail: each kind of damage is found, and said.
func TestVerdictCanFail(t *testing.T) {
	without := func(all []*kgo.Record, i int) []*kgo.Record {
		left := slices.Delete(slices.Clone(all), i, i+1)
		for k := range left {
			left[k] = &kgo.Record{Offset: int64(k), Key: left[k].Key, Value: left[k].Value, Headers: left[k].Headers}
		}
		return left
	}
	for name, c := range map[string]struct {
		damage func(e *evidence)
		says   []string
	}{
		"the last record of the log is gone": {
			func(e *evidence) { e.log[0] = e.log[0][:len(e.log[0])-1] },
			[]string{"state: p0 at offset", "twins unlike those of an uninterrupted run: 1, as b: "},
		},
		"a record in the middle is gone": {
			func(e *evidence) { e.log[0] = without(e.log[0], 150) },
			[]string{"state: p0", "twins unlike"}, // all behind it is void
		},
		"a sample took effect twice": {
			func(e *evidence) { e.parts[0].StateHash++; e.twins["a"].Counters.Applied++ },
			[]string{"state: p0", "a: applied: 101, want applied: 100"},
		},
		"a twin is missing": {
			func(e *evidence) { delete(e.twins, "b"); e.parts[0].Twins-- },
			[]string{"1 twins with hash", "b is missing"},
		},
		"a twin nobody fed": {
			func(e *evidence) { e.twins["c"] = &doppelv1.Twin{Id: "c"} },
			[]string{"3 twins, 2 in the log"},
		},
		"a baseline differs": {
			func(e *evidence) { e.twins["a"].Metrics["v"].Mean += 1e-9 },
			[]string{"twins unlike those of an uninterrupted run: 1, as a: mean"},
		},
		"a partition is missing": {
			func(e *evidence) { e.parts = nil },
			[]string{"the node has 0 partitions, the log 1"},
		},
		"a record says something else than its replay": {
			func(e *evidence) {
				var dec codec.EventDecoder
				var ev codec.Event
				r := *e.log[0][20]
				if err := dec.Decode(r.Value, &ev); err != nil {
					panic(err)
				}
				ev.Digest++
				r.Value = codec.AppendEvent(nil, &ev)
				e.log[0] = slices.Clone(e.log[0])
				e.log[0][20] = &r
			},
			[]string{"records that say something else than their replay: 1, as p0 offset 20"},
		},
		"a transition was never published": {
			func(e *evidence) { e.alerts[0] = e.alerts[0][1:] },
			[]string{"alert transitions never published: 1, as 0:"},
		},
		"a transition was published that never was": {
			func(e *evidence) {
				r := *e.alerts[0][0]
				r.Headers = []kgo.RecordHeader{{Key: "pos", Value: []byte("0:3:0")}}
				e.alerts[0] = append(e.alerts[0], &r)
			},
			[]string{"alert transitions published that never were: 1, as 0:3:0"},
		},
		"a transition was published as another": {
			func(e *evidence) {
				r := *e.alerts[0][0]
				r.Value = e.alerts[0][len(e.alerts[0])-1].Value
				e.alerts[0] = append(e.alerts[0], &r)
			},
			[]string{"alert transitions published differently: 1"},
		},
		"more settled than received": {
			func(e *evidence) { e.counts[`doppel_samples_total{result="duplicate"}`] = 1 },
			[]string{"accounts: 200 samples received, 201 accounted for"},
		},
		"in flight at rest": {
			func(e *evidence) {
				e.counts["doppel_samples_in_flight"] = 1
				e.counts["doppel_samples_received_total"]++
			},
			[]string{"1 samples in flight at rest"},
		},
		"no accounts": {
			func(e *evidence) { e.counts = nil },
			[]string{"accounts: 0 samples received"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := healthy(t)
			c.damage(e)
			said := strings.Join(e.judge(t), "\n")
			for _, want := range c.says {
				if !strings.Contains(said, want) {
					t.Errorf("the verdict does not say %q:\n%s", want, said)
				}
			}
		})
	}
}

// TestFoldSkipsWhatIsVoid: stragglers of an older epoch, doubled records and foreign bytes change nothing.
func TestFoldSkipsWhatIsVoid(t *testing.T) {
	e := healthy(t)
	last := e.log[0][len(e.log[0])-1]
	straggler := e.log[0][40] // of the first epoch
	for _, r := range []*kgo.Record{last, straggler, {Key: []byte("a"), Value: []byte("nonsense")}} {
		e.log[0] = append(e.log[0], &kgo.Record{Offset: int64(len(e.log[0])), Key: r.Key, Value: r.Value})
	}
	if findings := e.judge(t); len(findings) > 0 {
		t.Errorf("findings: %q", findings)
	}
	folds, err := foldLog(e.log, nil)
	if err != nil {
		t.Fatal(err)
	}
	if f := folds[0]; f.void != 3 || f.claims != 2 {
		t.Errorf("%d void, %d claims, want 3 and 2", f.void, f.claims)
	}
	if _, err := foldLog(e.log, map[int32]int64{0: int64(len(e.log[0])) + 1}); err == nil {
		t.Error("a node that stands behind the end of the log is not noticed")
	}
}
