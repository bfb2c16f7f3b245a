package fault

import (
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/doppel-iot/doppel/actors/codec"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// trial is what a healthy cluster leaves: the evidence of a node, and what a subscriber heard.
type trial struct {
	*evidence

	heard heard
	want  map[string]uint64
}

func healthyCluster(t *testing.T) *trial {
	t.Helper()
	e := healthy(t)
	folds, err := foldLog(e.log, nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &trial{evidence: e, heard: heard{stories: make(map[string][]*doppelv1.Alert)}, want: map[string]uint64{"a": 100, "b": 100}}
	for _, f := range folds {
		for id, story := range f.stories {
			tr.heard.stories[id] = slices.Clone(story)
		}
	}
	return tr
}

// judge is what a court makes of it. must ends where the log does, but for cut records.
func (tr *trial) judge(t *testing.T) []string {
	t.Helper()
	folds, err := foldLog(tr.log, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &verdict{}
	v.audience("subscriber", &tr.heard, folds, folds)
	v.answers("node-1", folds, tr.twins)
	v.once(tr.chronicle().devices, tr.want)
	return v.findings
}

func (tr *trial) chronicle() *chronicle {
	w := &stopwatch{ids: []string{"a", "b"}, sent: make([][]int64, 2)}
	return w.chronicle(1, tr.log, nil)
}

// again writes a record of the log once more at its end, as valid as the first.
func (tr *trial) again(t *testing.T, offset int) {
	t.Helper()
	var dec codec.EventDecoder
	var last, ev codec.Event
	log := tr.log[0]
	if err := dec.Decode(log[len(log)-1].Value, &last); err != nil {
		t.Fatal(err)
	}
	if err := dec.Decode(log[offset].Value, &ev); err != nil {
		t.Fatal(err)
	}
	ev.Epoch, ev.N = last.Epoch, last.N+1
	tr.log[0] = append(slices.Clone(log), &kgo.Record{Offset: int64(len(log)), Key: log[offset].Key, Value: codec.AppendEvent(nil, &ev)})
}

func TestVerdictOfClusterHealth(t *testing.T) {
	tr := healthyCluster(t)
	if len(tr.heard.stories["a"]) < 2 {
		t.Fatalf("%d transitions: this evidence shows too little", len(tr.heard.stories["a"]))
	}
	if findings := tr.judge(t); len(findings) > 0 {
		t.Errorf("findings: %q", findings)
	}
}

// TestVerdictOfClusterCanFail: each kind of damage is found, and said.
func TestVerdictOfClusterCanFail(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, tr *trial)
		says   string
	}{
		"a transition was not heard": {
			func(_ *testing.T, tr *trial) { tr.heard.stories["a"] = tr.heard.stories["a"][1:] },
			"subscriber: transitions never heard: 1, as a ",
		},
		"nothing was heard": {
			func(_ *testing.T, tr *trial) { tr.heard.stories = nil },
			"subscriber: transitions never heard: ",
		},
		"a transition was heard again at another node": {
			func(_ *testing.T, tr *trial) {
				tr.heard.stories["a"] = append(tr.heard.stories["a"], tr.heard.stories["a"][0])
			},
			"subscriber: transitions heard again: 1, as a ",
		},
		"transitions were heard in another order": {
			func(_ *testing.T, tr *trial) { slices.Reverse(tr.heard.stories["a"]) },
			"subscriber: transitions heard behind later ones: ",
		},
		"a transition was heard that a stale owner made up": {
			func(_ *testing.T, tr *trial) {
				tr.heard.stories["a"] = append(tr.heard.stories["a"], &doppelv1.Alert{Device: "a", Id: "0000000000000001"})
			},
			"subscriber: transitions that never were: 1, as a 0000000000000001",
		},
		"a transition of a device that has none": {
			func(_ *testing.T, tr *trial) {
				tr.heard.stories["z"] = []*doppelv1.Alert{{Device: "z", Id: "0000000000000002"}}
			},
			"subscriber: transitions that never were: 1, as z 0000000000000002",
		},
		"a gap": {
			func(_ *testing.T, tr *trial) { tr.heard.gaps = 1 },
			"subscriber: was told of 1 gaps",
		},
		"a node does not know a device of another": {
			func(_ *testing.T, tr *trial) { delete(tr.twins, "b") },
			"node-1: answers unlike the log: 1, as b is missing",
		},
		"a node answers with another digest": {
			func(_ *testing.T, tr *trial) { tr.twins["a"].Digest++ },
			"node-1: answers unlike the log: 1, as a has digests",
		},
		"a node answers with another set": {
			func(_ *testing.T, tr *trial) { tr.twins["a"].SetDigest++ },
			"node-1: answers unlike the log: 1, as a has digests",
		},
		"a node's answers stay stale": {
			func(_ *testing.T, tr *trial) { tr.twins["a"].Stale = true },
			"node-1: answers unlike the log: 1, as a is stale at rest",
		},
		"a node answers for a stranger": {
			func(_ *testing.T, tr *trial) { tr.twins["c"] = &doppelv1.Twin{Id: "c"} },
			"node-1: answers for 3 twins, 2 in the log",
		},
		"an acknowledged sample is in no record": {
			func(_ *testing.T, tr *trial) { tr.want["a"] = 101 },
			"samples in no valid record: 1, as a 101",
		},
		"an acknowledged sample is in a void record only": {
			func(_ *testing.T, tr *trial) {
				// A claim of another node right behind the last record but one: the last is a straggler's.
				log := slices.Clone(tr.log[0])
				last := *log[len(log)-1]
				claim := &kgo.Record{Offset: last.Offset, Value: codec.AppendEvent(nil, &codec.Event{
					Kind: doppelv1.EventKind_EVENT_KIND_CLAIM, Claim: &codec.Claim{Node: "m"},
				})}
				last.Offset++
				tr.log[0] = append(log[:len(log)-1], claim, &last)
			},
			"samples in no valid record: 1, as b 100",
		},
		"a sample counts under two owners": {
			func(t *testing.T, tr *trial) { tr.again(t, 30) },
			"samples in several valid records: 1, as ",
		},
		"a device nobody knows": {
			func(_ *testing.T, tr *trial) { tr.want["x"] = 1 },
			"samples in no valid record: 1, as x 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := healthyCluster(t)
			c.damage(t, tr)
			if said := strings.Join(tr.judge(t), "\n"); !strings.Contains(said, c.says) {
				t.Errorf("the verdict does not say %q:\n%s", c.says, said)
			}
		})
	}
}

// TestVerdictOfLateSamples: order that was given up counts, however it came about.
func TestVerdictOfLateSamples(t *testing.T) {
	v := &verdict{}
	v.once(map[string]*timeline{"a": {times: []uint8{1, 1}, late: 1}}, map[string]uint64{"a": 2})
	if len(v.findings) != 1 || !strings.Contains(v.findings[0], "late samples, so that their digest differs: 1, as a: 1") {
		t.Errorf("findings: %q", v.findings)
	}
}

// TestAudienceMayHearMore: what was written behind the end of the judged log may be heard or not.
func TestAudienceMayHearMore(t *testing.T) {
	tr := healthyCluster(t)
	all, err := foldLog(tr.log, nil)
	if err != nil {
		t.Fatal(err)
	}
	must, err := foldLog(tr.log, map[int32]int64{0: 20})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []heard{tr.heard, {}} {
		v := &verdict{}
		if v.audience("subscriber", &h, must, all); len(v.findings) > 0 {
			t.Errorf("findings: %q", v.findings)
		}
	}
	if h := (heard{}); h.complete(all) || !h.complete(must) || !tr.heard.complete(all) {
		t.Error("what is complete and what is not is told wrongly")
	}
}
