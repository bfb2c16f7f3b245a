package selection_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/doppel-iot/doppel/actors/selection"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func ordered(tb testing.TB, text string) selection.Order {
	tb.Helper()
	o, err := selection.ParseOrder(text, &doppelv1.Twin{})
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

// TestFirst: the first few, page by page, are all of them in order, whatever comes first.
func TestFirst(t *testing.T) {
	o := ordered(t, "version desc, boot")
	rapid.Check(t, func(t *rapid.T) {
		n, size := rapid.IntRange(0, 60).Draw(t, "twins"), rapid.IntRange(1, 20).Draw(t, "size")
		var all []selection.Key
		for i := range n {
			all = append(all, o.KeyOf(&doppelv1.Twin{Version: rapid.Uint64Range(0, 5).Draw(t, "version"), Boot: rapid.Uint64Range(0, 2).Draw(t, "boot")}, string(rune('0'+i))))
		}
		var got []string
		var after *selection.Key
		for {
			f := selection.NewFirst[int](o, size, after)
			for i := range all {
				f.Add(all[i], i)
			}
			items, more := f.Result()
			for _, item := range items {
				got = append(got, item.Key.ID())
			}
			if !more {
				break
			}
			after = &items[len(items)-1].Key
		}
		slices.SortFunc(all, o.Compare)
		var want []string
		for _, k := range all {
			want = append(want, k.ID())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("pages of %d (-want +got)\n%s", size, diff)
		}
	})
}

// TestKeyTravels: a key that was written is read as it was.
func TestKeyTravels(t *testing.T) {
	o := ordered(t, `online, last_seen desc, metrics.t.value, tags.site, digest`)
	tw := &doppelv1.Twin{Online: true, Digest: math.MaxUint64, Metrics: map[string]*doppelv1.Metric{"t": {Value: -0.5}}}
	k := o.KeyOf(tw, "a:b")
	b := k.Append(nil)
	got, ok := o.ReadKey(b)
	if !ok || o.Compare(got, k) != 0 || got.ID() != "a:b" {
		t.Errorf("read %v, %v", got, ok)
	}
	for n := range b {
		if _, ok := o.ReadKey(b[:n]); ok {
			t.Errorf("%d bytes of %d were read", n, len(b))
		}
	}
	if _, ok := o.ReadKey(append(b, 0)); ok {
		t.Error("a byte too many was read")
	}
}

// Whatever is taken for a key is refused, or a key that can be compared and written.
func FuzzKey(f *testing.F) {
	o := ordered(f, `version, metrics.t.value desc, tags.site`)
	k := o.KeyOf(&doppelv1.Twin{Version: 3, Tags: map[string]string{"site": "brno"}}, "x")
	f.Add(k.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := o.ReadKey(b)
		if !ok {
			return
		}
		if o.Compare(got, got) != 0 || o.Compare(got, k) != -o.Compare(k, got) {
			t.Errorf("%x: compares oddly", b)
		}
		if again, ok := o.ReadKey(got.Append(nil)); !ok || o.Compare(again, got) != 0 {
			t.Errorf("%x: is not what it was", b)
		}
	})
}

// Whatever is taken for an order is refused with a text, or orders.
func FuzzOrder(f *testing.F) {
	for _, s := range []string{"id", `metrics["t"].value desc, tags.site`, "counters.applied asc,last_seen desc", ",", "metrics", "metrics."} {
		f.Add(s)
	}
	tw := &doppelv1.Twin{Id: "a", Metrics: map[string]*doppelv1.Metric{"t": {Value: 1}}}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := selection.ParseOrder(s, &doppelv1.Twin{})
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a text")
			}
			return
		}
		if k := o.KeyOf(tw, "a"); o.Compare(k, k) != 0 {
			t.Errorf("%q: a twin is not equal to itself", s)
		}
		if _, err := selection.ParseOrder(o.String(), &doppelv1.Twin{}); err != nil {
			t.Errorf("%q: written as %q, which is refused: %v", s, o, err)
		}
	})
}

// TestSketch: quantiles lie within one part in a hundred of the exact ones, also of sketches that were
// added up, of all signs and sizes.
func TestSketch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, value := range map[string]func() float64{
		"temperatures": func() float64 { return 20 + 5*random.NormFloat64() },
		"both signs":   random.NormFloat64,
		"zeros":        func() float64 { return float64(random.IntN(3) - 1) },
		"wide":         func() float64 { return math.Exp(150 * random.NormFloat64()) },
		"equal":        func() float64 { return 7.25 },
	} {
		var parts [3]selection.Sketch
		var all []float64
		for i := range 3001 {
			x := value()
			all = append(all, x)
			parts[i%3].Add(x)
		}
		var sum selection.Sketch
		for i := range parts {
			b, err := proto.Marshal(parts[i].Proto())
			if err != nil {
				t.Fatal(err)
			}
			m := &doppelv1.MetricSketch{}
			if err := proto.Unmarshal(b, m); err != nil {
				t.Fatal(err)
			}
			sum.AddProto(m)
		}
		slices.Sort(all)
		quantiles := []float64{0, 0.001, 0.1, 0.5, 0.9, 0.99, 1}
		s := sum.Summary(quantiles)
		if s.GetCount() != 3001 || s.GetMin() != all[0] || s.GetMax() != all[3000] {
			t.Errorf("%s: %v", name, s)
		}
		for i, q := range quantiles {
			exact := all[int(q*3000)]
			if got := s.GetQuantiles()[i]; math.Abs(got-exact) > 0.0101*math.Abs(exact) {
				t.Errorf("%s: quantile %v is %v, exactly %v", name, q, got, exact)
			}
		}
	}
	var none selection.Sketch
	none.AddProto(&doppelv1.MetricSketch{})
	if s := none.Summary([]float64{0.5}); s.GetCount() != 0 || s.GetMean() != 0 || s.GetQuantiles()[0] != 0 {
		t.Errorf("of nothing: %v", s)
	}
}

// TestGroupsAreBounded: a grouping by something that every twin has for itself ends.
func TestGroupsAreBounded(t *testing.T) {
	by, err := selection.ParseGrouping(&doppelv1.AggregateTwinsRequest{GroupBy: "tags.serial"})
	if err != nil {
		t.Fatal(err)
	}
	g := selection.NewGroups(by)
	n := 0
	for ; g.Err() == nil && n < 200_000; n++ {
		g.AddTo([]byte{byte(n), byte(n >> 8), byte(n >> 16)}, nil)
	}
	if g.Err() == nil || n != 100_001 {
		t.Errorf("%d groups, %v", n, g.Err())
	}
}

// TestAbsentLast: what has no value stands behind what has one, in both directions, also when a twin is read
// without its message.
func TestAbsentLast(t *testing.T) {
	twins := []*doppelv1.Twin{
		{Id: "a"},
		{Id: "b", Metrics: map[string]*doppelv1.Metric{"t": {Value: 1}}, LastSeen: timestamppb.New(time.Unix(1, 0)), Tags: map[string]string{"site": "brno"}, Convergence: durationpb.New(time.Second)},
		{Id: "c", Metrics: map[string]*doppelv1.Metric{"t": {Value: 2}}, LastSeen: timestamppb.New(time.Unix(2, 0)), Tags: map[string]string{"site": "praha"}, Convergence: durationpb.New(time.Minute)},
	}
	for _, field := range []string{"metrics.t.value", "last_seen", "tags.site", "convergence"} {
		for direction, want := range map[string]string{"asc": "bca", "desc": "cba"} {
			o := ordered(t, field+" "+direction)
			keys := make([]selection.Key, 0, len(twins))
			for _, tw := range twins {
				keys = append(keys, o.KeyOf(tw, tw.GetId()))
			}
			slices.SortFunc(keys, o.Compare)
			if got := keys[0].ID() + keys[1].ID() + keys[2].ID(); got != want {
				t.Errorf("order_by %s %s: got %s, want %s", field, direction, got, want)
			}
		}
	}
}
