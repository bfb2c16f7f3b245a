package series_test

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/sim/device"
	"github.com/doppel-iot/doppel/sim/series"
)

const three = "timestamp,value\n2022-03-20 10:00:00,1\n2022-03-20 11:00:00,2.5\n2022-03-20 12:00:00,-3\n"

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

func TestLoad(t *testing.T) {
	t.Parallel()
	got, err := series.Load(fstest.MapFS{
		"b/deep er/x_1.csv": file(three),
		"a.CSV":             file("timestamp,value,note\n2022-03-20T10:00:00Z,1e3,\n2022-03-20T11:00:00.5+01:00,2\n"),
		"notes.txt":         file("not a series"),
	})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2022, 3, 20, 10, 0, 0, 0, time.UTC)
	want := []series.Series{
		{ID: "a", Times: []int64{at.UnixNano(), at.Add(500 * time.Millisecond).UnixNano()}, Values: []float64{1000, 2}},
		{ID: "b.deep-er.x_1", Times: []int64{at.UnixNano(), at.Add(time.Hour).UnixNano(), at.Add(2 * time.Hour).UnixNano()}, Values: []float64{1, 2.5, -3}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestLoadTimes: a clock that is set back stands still; integers count what their size says.
func TestLoadTimes(t *testing.T) {
	t.Parallel()
	got, err := series.Load(fstest.MapFS{
		"back.csv":    file("timestamp,value\n2022-03-20 10:00:00,1\n2022-03-20 09:00:00,2\n2022-03-20 11:00:00,3\n"),
		"integer.csv": file("timestamp,value\n1647770400,1\n1647770401000,2\n1647770402000000,3\n1647770403000000000,4\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2022, 3, 20, 10, 0, 0, 0, time.UTC).UnixNano()
	want := []series.Series{
		{ID: "back", Times: []int64{at, at, at + 3600e9}, Values: []float64{1, 2, 3}},
		{ID: "integer", Times: []int64{at, at + 1e9, at + 2e9, at + 3e9}, Values: []float64{1, 2, 3, 4}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestLoadErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ content, want string }{
		{"", "header"},
		{"time,value\n", "want timestamp,value"},
		{"timestamp,value\n2022-03-20 10:00:00,1\n", "fewer than two rows"},
		{"timestamp,value\nyesterday,1\n", `line 2: timestamp "yesterday"`},
		{"timestamp,value\n2022-03-20 10:00:00,1\n2022-03-20 11:00:00,x\n", "line 3"},
	} {
		_, err := series.Load(fstest.MapFS{"s.csv": file(c.content)})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "s.csv") {
			t.Errorf("%q: error %v, want one with %q", c.content, err, c.want)
		}
	}
	if _, err := series.Load(fstest.MapFS{"x.txt": file("")}); err == nil {
		t.Error("no error without any series")
	}
}

func TestRecorded(t *testing.T) {
	t.Parallel()
	all, err := series.Recorded()
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]int)
	for _, s := range all {
		rows[s.ID] = len(s.Times)
	}
	want := map[string]int{"water-flow": 1268, "office-temperature": 509, "office-humidity": 509, "office-light": 509, "office-co2": 509}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPlayer(t *testing.T) {
	t.Parallel()
	all, err := series.Load(fstest.MapFS{"s.csv": file(three)})
	if err != nil {
		t.Fatal(err)
	}
	const start = 1_700_000_000_000_000_000
	p, err := series.NewPlayer(all[0], series.Config{ID: "x", Boot: 4, Start: start, Speed: 3600, Skip: 1})
	if err != nil {
		t.Fatal(err)
	}
	var want device.Chain
	// An hour becomes a second; the round closes with the usual distance.
	for i, v := range []float64{2.5, -3, 1, 2.5, -3, 1, 2.5} {
		at := start + int64(i)*int64(time.Second)
		if p.Due() != at {
			t.Errorf("sample %d due %d s after the start", i, (p.Due()-start)/int64(time.Second))
		}
		s := p.Take(0)
		exp := device.Sample{Boot: 4, Seq: uint64(i + 1), Time: at, Readings: []device.Reading{{Name: "value", Value: v}}}
		if diff := cmp.Diff(exp, s); diff != "" {
			t.Errorf("sample %d (-want +got):\n%s", i, diff)
		}
		want.Add(&exp)
	}
	if p.Expected() != want.Sum {
		t.Errorf("digests %+v, want %+v", p.Expected(), want.Sum)
	}
	for _, speed := range []float64{0, -1} {
		if _, err := series.NewPlayer(all[0], series.Config{Speed: speed}); err == nil {
			t.Errorf("no error for speed %v", speed)
		}
	}
}
