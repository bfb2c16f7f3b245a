package questdb

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/host"
)

func TestConfigSaysWhatIsWrong(t *testing.T) {
	const u = "http://127.0.0.1:9000"
	for _, tc := range []struct {
		cfg  Config
		want string // empty: nothing
	}{
		{Config{URL: u}, ""},
		{Config{URL: "https://admin:secret@questdb:9000/"}, ""},
		{Config{URL: u, TTL: 48 * time.Hour}, ""},
		{Config{URL: u, TTL: time.Hour, PartitionBy: "HOUR"}, ""},
		{Config{}, "not http://"},
		{Config{URL: "127.0.0.1:9000"}, "url"},
		{Config{URL: "tcp://127.0.0.1:9009"}, "not http://"},
		{Config{URL: u + "/write"}, "not http://"},
		{Config{URL: u, PartitionBy: "day"}, "partition by"},
		{Config{URL: u, TTL: 36 * time.Hour}, "whole number"},
		{Config{URL: u, TTL: 31 * 24 * time.Hour, PartitionBy: "MONTH"}, "HOUR, DAY or WEEK"},
		{Config{URL: u, MaxMetrics: -1}, "negative"},
		{Config{URL: u, RetryMin: time.Minute}, "retries"},
	} {
		err := tc.cfg.Validate()
		if got := fmt.Sprint(err); (err == nil) != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%+v: got %v, want %q", tc.cfg, err, tc.want)
		}
	}
	if err := (Config{URL: "http://admin:secret@x/y"}).Validate(); strings.Contains(fmt.Sprint(err), "secret") {
		t.Errorf("error shows the password: %v", err)
	}
}

func TestColumnsFollowTheOrderOfClaims(t *testing.T) {
	for _, tc := range []struct {
		name   string
		claims [][2]string
		max    int
		want   map[string]column
	}{
		{"the first claim to a metric holds", [][2]string{{"a", "a"}, {"a", "a__2"}}, 9, map[string]column{"a": {"a", "a_z"}}},
		{"the first claim to a name holds", [][2]string{{"A", "A"}, {"a", "a"}, {"a", "a__2"}}, 9, map[string]column{"A": {"A", "A_z"}, "a": {"a__2", "a__2_z"}}},
		{"a name that is another's z is taken", [][2]string{{"a", "a"}, {"a_z", "a_z"}}, 9, map[string]column{"a": {"a", "a_z"}}},
		{"a name whose z is taken is taken", [][2]string{{"a_z", "a_z"}, {"a", "a"}}, 9, map[string]column{"a_z": {"a_z", "a_z_z"}}},
		{"fixed columns are taken", [][2]string{{"SEQ", "SEQ"}}, 9, map[string]column{}},
		{"claims beyond the limit do not count", [][2]string{{"a", "a"}, {"b", "b"}, {"c", "c"}}, 2, map[string]column{"a": {"a", "a_z"}, "b": {"b", "b_z"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newColumns(tc.max)
			for _, claim := range tc.claims {
				c.add(claim[0], claim[1])
			}
			if diff := cmp.Diff(tc.want, c.byMetric, cmp.AllowUnexported(column{})); diff != "" {
				t.Errorf("columns (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFileCursors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cursor.json")
	store := NewFileCursors(path, "log-1")
	load := func(s *FileCursors) map[int32]host.Cursor {
		t.Helper()
		got, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := load(store); len(got) != 0 {
		t.Errorf("cursors out of nothing: %v", got)
	}
	want := map[int32]host.Cursor{0: {Next: 1 << 60, Epoch: 1<<64 - 1, N: 7}, 63: {Next: 2, Epoch: 1, N: 0}}
	for range 2 {
		if err := store.Save(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, load(NewFileCursors(path, "log-1"))); diff != "" {
		t.Errorf("cursors (-want +got):\n%s", diff)
	}
	moved := NewFileCursors(path, "log-1")
	load(moved)
	want[63] = host.Cursor{Next: 3, Epoch: 1, N: 1}
	if err := moved.Save(t.Context(), map[int32]host.Cursor{63: want[63]}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, load(NewFileCursors(path, "log-1"))); diff != "" {
		t.Errorf("cursors when one has moved (-want +got):\n%s", diff)
	}
	if got := load(NewFileCursors(path, "log-2")); len(got) != 0 {
		t.Errorf("cursors of another log: %v", got)
	}
	if err := moved.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := load(NewFileCursors(path, "log-1")); len(got) != 0 {
		t.Errorf("cursors after a reset: %v", got)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := store.Load(t.Context()); err == nil {
		t.Errorf("half a file gave %v", got)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestACursorOutsideTheLogStartsOver(t *testing.T) {
	for _, tc := range []struct {
		name   string
		stored host.Cursor
		want   host.Cursor
	}{
		{"beyond its end", host.Cursor{Next: 11, Epoch: 0, N: 9}, host.Cursor{Next: 4, Epoch: noEpoch}},
		{"below its start", host.Cursor{Next: 3, Epoch: 0, N: 2}, host.Cursor{Next: 4, Epoch: noEpoch}},
		{"within", host.Cursor{Next: 10, Epoch: 0, N: 9}, host.Cursor{Next: 10, Epoch: 0, N: 9}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, Config{URL: "http://127.0.0.1:1"})
			f.log.claim()
			for seq := 1; seq <= 9; seq++ {
				f.log.event("d", sample(seq, "m", 1.0))
			}
			f.log.lost = 4
			f.stored = map[int32]host.Cursor{onlyPartition: tc.stored}
			p, err := f.partition(t.Context(), onlyPartition)
			if err != nil {
				t.Fatal(err)
			}
			if p.pos != tc.want {
				t.Errorf("starts at %+v, want %+v", p.pos, tc.want)
			}
		})
	}
}
