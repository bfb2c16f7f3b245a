package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/selection"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func compiled(tb testing.TB, text string) filter.Filter {
	tb.Helper()
	env, err := filter.NewEnv(&doppelv1.Twin{})
	if err != nil {
		tb.Fatal(err)
	}
	f, err := env.Compile(text)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func ordered(tb testing.TB, text string) selection.Order {
	tb.Helper()
	o, err := selection.ParseOrder(text, &doppelv1.Twin{})
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

// live offers a device's sample, or its status.
func live(r Reply, device string, seq int, value float64) []Message {
	m := sample(r, device, seq)
	m.Payload = fmt.Appendf(nil, `{"boot":1,"samples":[{"seq":%d,"metrics":{"t":%g,"u":%d}}]}`, seq, value, seq)
	all := []Message{m}
	if seq%3 == 0 {
		gone := m
		gone.Kind, gone.Payload = Status, fmt.Appendf(nil, `{"online":%t,"boot":1,"session":%d}`, value > 15, seq)
		all = append(all, gone)
	}
	return all
}

// TestSelect asks for twins in all orders and by all filters while some of them are passive, wake, go
// offline, are tagged, deleted and restored, and compares with all twins, filtered and sorted one by one.
func TestSelect(t *testing.T) {
	const twins, page = 60, 7
	filters := []string{
		``, `online`, `!online`, `size(open_alerts) > 0`, `online && size(open_alerts) == 0`, `online && metrics.t.value > 12`,
		`metrics["t"].value < 5 || counters.applied > 3`, `id.endsWith("7")`, `metrics.u.mean > 1`, `!online && has(metrics.t)`, `version == 0`,
		`tags.site == "brno"`, `tags.site == "brno" && tags.line == "2" && online`, `tags.site == "nowhere"`, `has(tags.line) && tags["line"] != "1"`,
		`tags.site == "brno" || metrics.t.value > 15`, `desired.a == 1`,
	}
	orders := []string{``, `metrics.t.value desc`, `online, last_seen desc`, `counters.applied desc, id desc`, `metrics.u.count`, `metrics.none.value`, `tags.site, tags.line desc`}
	synctest.Test(t, func(t *testing.T) {
		p := newPlant()
		rest := func(cfg *Config) { cfg.PassivateAfter = 3 * time.Minute }
		h := p.host(t, rest)
		h.Own(0)
		synctest.Wait()
		random := rand.New(rand.NewPCG(1, 2))
		var r replies
		seqs := make([]int, twins)
		passive, alerting, deleted := false, false, 0
		for round := range 12 {
			for range 40 {
				d := random.IntN(twins)
				if round%3 == 2 {
					d %= 10 // the others rest
				}
				seqs[d]++
				offer(t, h, live(&r, fmt.Sprintf("dev-%02d", d), seqs[d], float64(random.IntN(20)))...)
			}
			for range 6 {
				u := Update{Device: fmt.Sprintf("dev-%02d", random.IntN(twins)), AllowMissing: true, ReplaceTags: random.IntN(3) == 0}
				u.Tags = map[string]string{"site": []string{"brno", "prague"}[random.IntN(2)], "line": strconv.Itoa(random.IntN(4))}
				if random.IntN(2) == 0 {
					u.Desired, u.RemovedTags, u.Tags = []byte(`{"a":1}`), []string{"line"}, nil
				}
				if _, err := h.Update(t.Context(), 0, u); err != nil {
					t.Fatal(err)
				}
			}
			if gone := fmt.Sprintf("dev-%02d", random.IntN(twins)); round > 2 {
				if err := h.Delete(t.Context(), 0, gone, ""); err == nil {
					deleted++
				} else if !errors.Is(err, ErrUnknownDevice) {
					t.Fatal(err)
				}
			}
			time.Sleep(2 * time.Minute)
			if round == 8 {
				if err := h.Release(t.Context(), 0); err != nil {
					t.Fatal(err)
				}
				h = p.host(t, rest)
				h.Own(0)
				synctest.Wait()
			}
			view := h.Partition(0)
			passive, alerting = passive || view.Passive > 0 && view.Passive < view.Twins, alerting || view.OpenAlerts > 0
			for _, text := range filters {
				for _, by := range orders {
					checkSelect(t, h, text, by, page)
				}
			}
		}
		if !passive || !alerting || deleted < 3 {
			t.Errorf("some twins passive %t, some alerts open %t, %d deleted: want all of it", passive, alerting, deleted)
		}
		h.Drop(0)
		synctest.Wait()
	})
}

func checkSelect(t *testing.T, h *Host, text, by string, page int) {
	t.Helper()
	f, o := compiled(t, text), ordered(t, by)
	var want []selection.Key
	err := h.EachTwin(t.Context(), 0, func(tw *doppelv1.Twin) bool {
		ok, err := f.Matches(tw)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			want = append(want, o.KeyOf(tw, tw.GetId()))
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(want, o.Compare)
	var got []selection.Key
	q := Query{Filter: f, Order: o, Limit: page}
	for {
		s, err := h.Select(t.Context(), 0, &q)
		if err != nil {
			t.Fatal(err)
		}
		if s.Count != int64(len(want)) {
			t.Fatalf("%q by %q: count %d, want %d", text, by, s.Count, len(want))
		}
		if got = append(got, s.Keys...); !s.More {
			break
		}
		if len(s.Keys) != page {
			t.Fatalf("%q by %q: a page of %d", text, by, len(s.Keys))
		}
		q.After = &s.Keys[page-1]
	}
	if diff := gocmp.Diff(texts(want), texts(got)); diff != "" {
		t.Fatalf("%q by %q (-want +got)\n%s", text, by, diff)
	}
}

func texts(keys []selection.Key) []string {
	all := make([]string, len(keys))
	for i, k := range keys {
		all[i] = string(k.Append(nil))
	}
	return all
}

// TestSummarize counts twins in groups.
func TestSummarize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant()
		h := p.host(t, func(cfg *Config) { cfg.PassivateAfter = time.Minute })
		h.Own(0)
		synctest.Wait()
		var r replies
		for i := range 100 {
			offer(t, h, live(&r, fmt.Sprintf("dev-%02d", i), 1, float64(i))...)
		}
		for i := range 10 {
			m := sample(&r, fmt.Sprintf("dev-%02d", i), 0)
			m.Kind, m.Payload = Status, []byte(`{"online":false}`)
			offer(t, h, m)
		}
		time.Sleep(5 * time.Minute)
		by, err := selection.ParseGrouping(&doppelv1.AggregateTwinsRequest{GroupBy: "online", Metrics: []string{"t", "none"}, Quantiles: []float64{0, 0.5, 1}})
		if err != nil {
			t.Fatal(err)
		}
		g := selection.NewGroups(by)
		if err := h.Summarize(t.Context(), 0, compiled(t, `metrics.t.value < 60`), by, g); err != nil {
			t.Fatal(err)
		}
		resp := g.Response()
		online, offline := resp.GetGroups()[0], resp.GetGroups()[1]
		if online.GetCount() < offline.GetCount() || resp.GetTotalSize() != 60 || online.GetCount()+offline.GetCount() != 60 {
			t.Errorf("groups %v", resp)
		}
		low, high := 100.0, 0.0
		for _, group := range resp.GetGroups() {
			m := group.GetMetrics()["t"]
			low, high = min(low, m.GetMin()), max(high, m.GetMax())
			if m.GetCount() != group.GetCount() || m.GetQuantiles()[0] != m.GetMin() || m.GetQuantiles()[2] != m.GetMax() {
				t.Errorf("metric %v of %d twins", m, group.GetCount())
			}
		}
		if low != 0 || high != 59 {
			t.Errorf("values from %v to %v, want 0 to 59", low, high)
		}
		h.Drop(0)
		synctest.Wait()
	})
}

// TestSurveyEnds: a survey of a partition that is let go, or that nobody waits for, ends.
func TestSurveyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant()
		h := p.host(t, nil)
		q := Query{Limit: 1}
		if _, err := h.Select(t.Context(), 0, &q); !errors.Is(err, ErrUnavailable) {
			t.Errorf("of nobody's partition: %v", err)
		}
		h.Own(0)
		synctest.Wait()
		var r replies
		offer(t, h, sample(&r, "d", 1))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := h.Select(ctx, 0, &q); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		costly := compiled(t, `[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, a+b+c+d > 0))))`)
		if _, err := h.Select(t.Context(), 0, &Query{Filter: costly}); !errors.Is(err, filter.ErrCost) {
			t.Errorf("a filter that costs too much: %v", err)
		}
		h.Drop(0)
		synctest.Wait()
	})
}

// TestRoster gives places to twins that come, rest, wake and leave, and compares with what it should hold.
func TestRoster(t *testing.T) {
	var r roster
	random := rand.New(rand.NewPCG(3, 4))
	cells := map[string]*cell{}
	o := quiet(t, nil)
	for i := range 2000 {
		switch id := fmt.Sprintf("d%d", random.IntN(300)); {
		case cells[id] == nil:
			c := o.newCell(id)
			cells[id] = c
			r.enter(c)
		case i%3 == 0:
			r.leaves(cells[id])
			delete(cells, id)
		case r.slots[cells[id].place].hot != nil:
			r.rests(cells[id], &passive{memory: id, idLen: uint8(len(id))})
		default:
			r.enter(cells[id])
		}
	}
	seen := map[string]bool{}
	for place := r.next(1, nil); place != 0; place = r.next(place+1, nil) {
		id := cmp.Or(r.slots[place].hot, &cell{}).pid.GetID()
		if rest := r.slots[place].rest; rest != nil {
			id = pidKind + rest.id()
		}
		id = strings.TrimPrefix(id, pidKind)
		if seen[id] || cells[id] == nil {
			t.Errorf("%s at %d: seen %t", id, place, seen[id])
		}
		seen[id] = true
	}
	if len(seen) != len(cells) || len(r.slots) > 301 {
		t.Errorf("%d twins met of %d, in %d places", len(seen), len(cells), len(r.slots))
	}
	on := []filter.Term{{Kind: filter.Online, Want: true}}
	for id, c := range cells {
		r.online.set(c.place, id > "d2")
	}
	got := 0
	for place := r.next(1, on); place != 0; place = r.next(place+1, on) {
		got++
	}
	want := 0
	for id := range cells {
		want += max(0, cmp.Compare(id, "d2"))
	}
	if got != want {
		t.Errorf("%d online, want %d", got, want)
	}
}

// TestTagIndex tags and untags, few and many, and compares with maps.
func TestTagIndex(t *testing.T) {
	var r roster
	random := rand.New(rand.NewPCG(5, 6))
	const places = 4 * fewMost
	r.used.set(0, false)
	have := map[uint32]map[string]string{}
	for range 30_000 {
		place := 1 + random.Uint32N(places)
		r.untag(place, have[place])
		have[place] = nil
		r.used.set(place, true)
		if random.IntN(4) > 0 {
			have[place] = map[string]string{"site": []string{"brno", "prague"}[random.IntN(20)/19], "serial": strconv.Itoa(random.IntN(50))}
			r.tag(place, have[place])
		}
		r.online.set(place, place%2 == 0)
	}
	for _, terms := range [][]filter.Term{
		{{Kind: filter.Tagged, Key: "site", Value: "brno", Want: true}},
		{{Kind: filter.Tagged, Key: "site", Value: "brno", Want: true}, {Kind: filter.Tagged, Key: "serial", Value: "7", Want: true}},
		{{Kind: filter.Tagged, Key: "serial", Value: "7", Want: true}, {Kind: filter.Online}},
		{{Kind: filter.Tagged, Key: "site", Value: "prague", Want: true}, {Kind: filter.Online, Want: true}},
		{{Kind: filter.Tagged, Key: "site", Value: "nowhere", Want: true}},
		{{Kind: filter.Tagged, Key: "nosuch", Value: "", Want: true}},
	} {
		var got, want []uint32
		for place := r.next(1, terms); place != 0; place = r.next(place+1, terms) {
			got = append(got, place)
		}
		for place := uint32(1); place <= places; place++ {
			ok := r.used.word(int(place/64))&(1<<(place%64)) != 0
			for _, term := range terms {
				if term.Kind == filter.Online {
					ok = ok && term.Want == (place%2 == 0)
				} else {
					value, tagged := have[place][term.Key]
					ok = ok && tagged && value == term.Value
				}
			}
			if ok {
				want = append(want, place)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v: %d places, want %d", terms, len(got), len(want))
		}
	}
	for place, tags := range have {
		r.untag(place, tags)
	}
	if len(r.tagged) != 0 {
		t.Errorf("%d tags are left that nobody has", len(r.tagged))
	}
}
