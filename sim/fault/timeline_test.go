package fault

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

var dawn = time.Unix(1795341600, 0)

func ats(all ...int) []int64 {
	times := make([]int64, len(all))
	for i, ms := range all {
		times[i] = dawn.Add(time.Duration(ms) * time.Millisecond).UnixNano()
	}
	return times
}

func moment(ms int) time.Time { return dawn.Add(time.Duration(ms) * time.Millisecond) }

// TestPause: a device stands still from when a sample could have taken effect until it did; waiting for one
// that was sent later on purpose is no standing still.
func TestPause(t *testing.T) {
	tl := &timeline{
		//         1   2    3 swapped with 4   5    6 never
		sent:    ats(0, 100, 310, 200, 400, 500),
		effect:  ats(5, 600, 610, 610, 650)[:5],
		durable: ats(2, 590, 0, 610, 640),
	}
	tl.durable[2] = 0
	for _, c := range []struct {
		from, to int
		want     time.Duration
		some     bool
	}{
		{0, 1000, 500 * time.Millisecond, true},
		{0, 100, 5 * time.Millisecond, true},
		{300, 400, 300 * time.Millisecond, true}, // both of the swapped ones were ready at 310
		{400, 500, 250 * time.Millisecond, true},
		{500, 1000, 0, false}, // what never took effect is for other judges
	} {
		got, some := tl.pause(moment(c.from), moment(c.to))
		if got != c.want || some != c.some {
			t.Errorf("pause in [%d, %d): %v, %v, want %v, %v", c.from, c.to, got, some, c.want, c.some)
		}
	}
	want := []time.Duration{490 * time.Millisecond, 410 * time.Millisecond}
	if diff := cmp.Diff(want, tl.durability(moment(50), moment(300))); diff != "" {
		t.Errorf("durability (-want +got):\n%s", diff)
	}
}

// TestWindows: a fault shows until the next one begins; one that ends a process shows again when it is back.
func TestWindows(t *testing.T) {
	got := windows([]happening{
		{fault: Fault{Subject: "node-2", Kind: Kill}, from: moment(60000), back: moment(63000), to: moment(64000)},
		{fault: Fault{Subject: Between("node-1", Kafka), Kind: Stall}, from: moment(1000), to: moment(50000)},
		{fault: Fault{Subject: "node-3", Kind: Pause}, from: moment(40000), to: moment(41000)},
	})
	want := map[string][][2]time.Time{
		"node/kafka: stall": {{moment(800), moment(50000)}},
		"node: SIGSTOP":     {{moment(39800), moment(56000)}},
		"node: kill -9":     {{moment(59800), moment(63000)}},
		"node: joins again": {{moment(63000), moment(79000)}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("windows (-want +got):\n%s", diff)
	}
}

// TestWaits: the moved are those whose partition was claimed in the window of a fault.
func TestWaits(t *testing.T) {
	c := &chronicle{
		devices: map[string]*timeline{
			"a": {partition: 1, sent: ats(0, 1000), effect: ats(1, 1300), durable: ats(1, 1200)},
			"b": {partition: 2, sent: ats(0, 1000), effect: ats(1, 1004), durable: ats(1, 1002)},
		},
		takes: []take{{1, "node-1", moment(1100)}, {2, "node-2", moment(100)}},
	}
	table := c.waits([]happening{{fault: Fault{Subject: "node-1", Kind: Pause}, from: moment(1000), to: moment(1100)}})
	if len(table) != 1 || len(table[0].moved) != 1 || table[0].moved[0] != 300*time.Millisecond || len(table[0].all) != 2 || len(table[0].acks) != 2 {
		t.Fatalf("waits: %+v", table)
	}
	for _, want := range []string{"node: SIGSTOP", " 1 |      1      300      300      300 |      2      300      300      300 |      200      200      200"} {
		if line := table[0].String(); !strings.Contains(line, want) {
			t.Errorf("the line says not %q: %s", want, line)
		}
	}
}

// TestChronicle: a sample is durable with whichever topic has it first, and takes effect where the log says so.
func TestChronicle(t *testing.T) {
	e := healthy(t)
	for i, r := range e.log[0] {
		r.Timestamp = moment(1000 + i)
	}
	one, seven := uint64(1), uint64(7)
	raw, err := proto.Marshal(&doppelv1.Telemetry{Boot: &one, Seq: &seven})
	if err != nil {
		t.Fatal(err)
	}
	w := &stopwatch{next: nil, ids: []string{"a"}, sent: [][]int64{ats(0)}}
	c := w.chronicle(1, e.log, records{0: {
		{Key: []byte("a"), Value: raw, Timestamp: moment(500)},
		{Key: []byte("a"), Value: []byte("nonsense"), Timestamp: moment(500)},
		{Key: []byte("z"), Value: raw, Timestamp: moment(500)},
	}})
	a := c.devices["a"]
	if got := []int64{a.durable[5], a.durable[6], a.effect[6]}; !cmp.Equal(got, ats(1011, 500, 1013)) {
		t.Errorf("sample 6 durable, 7 durable, 7 took effect: %v, want %v", got, ats(1011, 500, 1013))
	}
	if got := a.count(7); got != 1 {
		t.Errorf("sample 7 took effect %d times, want once", got)
	}
	if len(c.takes) != 2 || !c.takes[0].when.Equal(moment(1000)) {
		t.Errorf("claims %+v, want two, the first at %v", c.takes, moment(1000))
	}
	if c := w.chronicle(2, e.log, records{0: []*kgo.Record{}}); c.devices["a"].count(7) != 0 {
		t.Error("samples of another boot count")
	}
}
