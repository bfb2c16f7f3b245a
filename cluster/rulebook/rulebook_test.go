package rulebook_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/ruleset"
	"github.com/doppel-iot/doppel/cluster/rulebook"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/storage/kafka"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// book is a Book and what it published.
type book struct {
	*rulebook.Book
	log *kafka.Client

	mu   sync.Mutex
	sets []*ruleset.Set
}

func (b *book) newest() *ruleset.Set {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.sets) == 0 {
		return nil
	}
	return b.sets[len(b.sets)-1]
}

func openLog(t *testing.T) *kafka.Embedded {
	t.Helper()
	log, err := kafka.OpenEmbedded(kafka.EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return log
}

func open(t *testing.T, log *kafka.Embedded, change func(*rulebook.Config)) *book {
	t.Helper()
	client, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{log.Addr()}, Partitions: 1, Embedded: true, Linger: -1})
	if err != nil {
		t.Fatal(err)
	}
	b := &book{log: client}
	cfg := rulebook.Config{Log: client, Compiler: ruleset.NewCompiler(), Publish: func(s *ruleset.Set) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sets = append(b.sets, s)
	}}
	if change != nil {
		change(&cfg)
	}
	if b.Book, err = rulebook.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func applied(id string, enter float64) *doppelv1.WriteRulesRequest {
	return &doppelv1.WriteRulesRequest{By: "ann", Write: &doppelv1.WriteRulesRequest_Apply{Apply: &doppelv1.Rule{
		Id: id, Kind: "threshold", Levels: map[string]*doppelv1.Level{"warning": {Enter: enter, Op: ">"}},
	}}}
}

func silenced(id string, end time.Time) *doppelv1.WriteRulesRequest {
	return &doppelv1.WriteRulesRequest{Write: &doppelv1.WriteRulesRequest_Silence{Silence: &doppelv1.Silence{Id: id, Filter: "true", EndTime: timestamppb.New(end)}}}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// TestTwoWriters: two nodes that both believe they may write leave one order of versions behind.
func TestTwoWriters(t *testing.T) {
	log := openLog(t)
	books := []*book{open(t, log, nil), open(t, log, nil)}
	const each = 20
	var wg sync.WaitGroup
	var mu sync.Mutex
	versions := make(map[uint64]int)
	for i, b := range books {
		wg.Go(func() {
			for n := range each {
				resp, err := b.Change(t.Context(), applied("hot", float64(1+2*n+i)))
				if errors.Is(err, rulebook.ErrContended) {
					continue
				}
				if err != nil {
					t.Errorf("change %d: %v", n, err)
					return
				}
				mu.Lock()
				versions[resp.GetRule().GetVersion()]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	last, err := books[0].Change(t.Context(), applied("hot", 1000))
	if err != nil {
		t.Fatal(err)
	}
	highest := uint64(0)
	for v := range versions {
		highest = max(highest, v)
	}
	if last.GetRule().GetVersion() <= highest {
		t.Errorf("version %d follows %d", last.GetRule().GetVersion(), highest)
	}
	for _, b := range books {
		eventually(t, "both publish the same", func() bool { s := b.newest(); return s != nil && s.Offset == int64(last.GetOffset()) })
	}
	if diff := cmp.Diff(books[0].newest().Encoded, books[1].newest().Encoded); diff != "" {
		t.Errorf("what they published differs:\n%s", diff)
	}
}

// late is a log in front of which something happens before the first record is written.
type late struct {
	rulebook.Log
	before func()
}

func (l *late) PutRule(ctx context.Context, key string, value []byte) (int64, error) {
	if before := l.before; before != nil {
		l.before = nil
		before()
	}
	return l.Log.PutRule(ctx, key, value)
}

// TestOvertaken: a write that others overtook counts as the newest version, not as the one it would have been.
func TestOvertaken(t *testing.T) {
	log := openLog(t)
	other := open(t, log, nil)
	b := open(t, log, func(cfg *rulebook.Config) {
		cfg.Log = &late{Log: cfg.Log, before: func() {
			for _, enter := range []float64{20, 30} {
				if _, err := other.Change(t.Context(), applied("hot", enter)); err != nil {
					t.Error(err)
				}
			}
		}}
	})
	resp, err := b.Change(t.Context(), applied("hot", 10))
	if err != nil {
		t.Fatal(err)
	}
	want := resp.GetRule()
	if want.GetVersion() != 3 || want.GetLevels()["warning"].GetEnter() != 10 {
		t.Errorf("it became %v, want version 3 with its own content", want)
	}
	for _, b := range []*book{b, other, open(t, log, nil)} {
		if err := b.Await(t.Context(), int64(resp.GetOffset())); err != nil {
			t.Fatal(err)
		}
		rules, err := b.Rules(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(rules, func(r *doppelv1.Rule) bool { return r.GetId() == "hot" })
		if diff := cmp.Diff(want, rules[at], protocmp.Transform()); diff != "" {
			t.Errorf("known (-want +got):\n%s", diff)
		}
	}
}

// TestBookAnew: a book that is opened later is what the first one was, compacted or not.
func TestBookAnew(t *testing.T) {
	log := openLog(t)
	first := open(t, log, nil)
	for i := range 5 {
		if _, err := first.Change(t.Context(), applied("hot", float64(10+i))); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range []*doppelv1.WriteRulesRequest{
		applied("builtin.zscore", 3), silenced("0123456789abcdef", time.Now().Add(time.Hour)), applied("gone", 1),
		{Write: &doppelv1.WriteRulesRequest_Delete{Delete: "gone"}},
	} {
		if _, err := first.Change(t.Context(), w); err != nil {
			t.Fatalf("%v: %v", w, err)
		}
	}
	if _, err := first.log.PutRule(t.Context(), "foreign", []byte("bytes")); err != nil {
		t.Fatal(err)
	}
	second := open(t, log, nil)
	a, err := first.Rules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := second.Rules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, b, protocmp.Transform()); diff != "" {
		t.Errorf("rules (-first +second):\n%s", diff)
	}
	eventually(t, "both publish the same", func() bool {
		x, y := first.newest(), second.newest()
		return x != nil && y != nil && x.Offset == y.Offset && string(x.Encoded) == string(y.Encoded)
	})
	if s := second.newest(); len(s.Skipped) > 0 {
		t.Errorf("skipped: %v", s.Skipped)
	}
}

// TestBookRefuses: what cannot be is refused, and nothing is written.
func TestBookRefuses(t *testing.T) {
	var writes atomic.Bool
	writes.Store(true)
	now := time.Now()
	b := open(t, openLog(t), func(cfg *rulebook.Config) { cfg.Writes, cfg.Clock = writes.Load, func() time.Time { return now } })
	if _, err := b.Change(t.Context(), silenced("0000000000000001", now.Add(time.Minute))); err != nil {
		t.Fatal(err)
	}
	end, err := b.log.RulesEnd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		w    *doppelv1.WriteRulesRequest
		want error // nil: *ruleset.Invalid
	}{
		"nothing":         {&doppelv1.WriteRulesRequest{}, nil},
		"bad rule":        {applied("Hot", 1), nil},
		"unknown rule":    {&doppelv1.WriteRulesRequest{Write: &doppelv1.WriteRulesRequest_Delete{Delete: "nobody"}}, rulebook.ErrUnknownRule},
		"unknown silence": {&doppelv1.WriteRulesRequest{Write: &doppelv1.WriteRulesRequest_Expire{Expire: "nobody"}}, rulebook.ErrUnknownSilence},
		"bad filter":      {&doppelv1.WriteRulesRequest{Write: &doppelv1.WriteRulesRequest_Silence{Silence: &doppelv1.Silence{Id: "x", Filter: "(", EndTime: timestamppb.Now()}}}, nil},
	} {
		_, err := b.Change(t.Context(), tt.w)
		bad := (*ruleset.Invalid)(nil)
		if invalid := errors.As(err, &bad); invalid != (tt.want == nil) || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	writes.Store(false)
	if _, err := b.Change(t.Context(), applied("hot", 1)); !errors.Is(err, rulebook.ErrNotWriter) {
		t.Errorf("of another node: %v", err)
	}
	if after, err := b.log.RulesEnd(t.Context()); err != nil || after != end {
		t.Errorf("the log ends at %d, before at %d: %v", after, end, err)
	}
}

// TestBookIsBounded: there are as many rules and silences as may be, and no more.
func TestBookIsBounded(t *testing.T) {
	now := time.Now()
	var mu sync.Mutex
	b := open(t, openLog(t), func(cfg *rulebook.Config) {
		cfg.Clock = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	all, err := b.Rules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := len(all); i < rulebook.MaxRules; i++ {
		if _, err := b.Change(t.Context(), applied(fmt.Sprintf("r-%d", i), 1)); err != nil {
			t.Fatalf("rule %d: %v", i, err)
		}
	}
	if _, err := b.Change(t.Context(), applied("one-more", 1)); !errors.Is(err, rulebook.ErrFull) {
		t.Errorf("one rule more: %v", err)
	}
	if _, err := b.Change(t.Context(), applied("r-500", 2)); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	for i := range rulebook.MaxSilences {
		if _, err := b.Change(t.Context(), silenced(fmt.Sprintf("%016x", i), now.Add(time.Minute))); err != nil {
			t.Fatalf("silence %d: %v", i, err)
		}
	}
	if _, err := b.Change(t.Context(), silenced("more", now.Add(time.Minute))); !errors.Is(err, rulebook.ErrFull) {
		t.Errorf("one silence more: %v", err)
	}
	mu.Lock()
	now = now.Add(2 * time.Hour) // all have ended, long ago
	mu.Unlock()
	if _, err := b.Change(t.Context(), silenced("later", now.Add(time.Minute))); err != nil {
		t.Errorf("when the others have ended: %v", err)
	}
	b.mu.Lock()
	n := len(b.sets)
	b.mu.Unlock()
	if n > 100 {
		t.Errorf("%d sets were published for 2,000 changes: those in a row go together", n)
	}
}
