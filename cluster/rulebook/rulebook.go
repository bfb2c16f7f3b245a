// Package rulebook keeps the alert rules and silences of a cluster: it follows doppel.rules, knows the current
// set on every node, and changes it on the one that serves partition 0.
//
// It does not run rules: what it knows goes to Config.Publish, and each partition goes over to it with a
// record of its own. Nor does it decide which node may write; Config.Writes says so, and as it may be wrong for a
// moment, a writer looks again behind what it wrote.
//
// A Book is safe for concurrent use. Run has two goroutines, one that reads and one that tells; Change waits for
// the first, one caller at a time.
package rulebook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/ruleset"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Most rules and silences there may be, built-in rules and those that are off included.
const (
	MaxRules    = 1000
	MaxSilences = 1000
)

// Log is doppel.rules.
type Log interface {
	// FollowRules tells every record, oldest first and then as they come, until ctx ends; value nil: a
	// tombstone. ready comes when all that stood there at the start was told. next is the offset behind.
	FollowRules(ctx context.Context, ready func(next int64), fn func(key string, value []byte, next int64)) error
	// PutRule writes a record and returns its offset when that is durable.
	PutRule(ctx context.Context, key string, value []byte) (offset int64, err error)
	// RulesEnd is the offset behind the last record.
	RulesEnd(ctx context.Context) (int64, error)
}

// Config of a Book. Log, Compiler and Publish must be set.
type Config struct {
	Log      Log
	Compiler *ruleset.Compiler
	// Publish is given every set that comes in force; it must not block.
	Publish func(*ruleset.Set)
	// Writes says whether this node may write. Default: it may.
	Writes func() bool
	Clock  func() time.Time // default: the system's
	Logger *slog.Logger     // default: none
}

// Book is the rules and silences as this node knows them.
type Book struct {
	cfg     Config
	builtin map[string]*doppelv1.Rule

	writing chan struct{} // holds one while somebody writes

	mu       sync.Mutex
	known    bool  // all that stood in the log at the start was read
	next     int64 // offset behind the last record read
	told     int64 // of those that were published
	rules    map[string]*doppelv1.Rule
	silences map[string]*doppelv1.Silence
	versions map[string]lineage
	wake     chan struct{} // closed when next, told or known changes
}

// lineage is what is known of a rule's versions. The last record of a key counts, also after compaction. So if
// two nodes write, one may put an older version behind a newer one; it writes it again then, as the newest.
type lineage struct {
	highest   uint64
	backwards bool // the last record was no newer than one before it
}

// New returns a Book. It starts nothing.
func New(cfg Config) (*Book, error) {
	if cfg.Log == nil || cfg.Compiler == nil || cfg.Publish == nil {
		return nil, errors.New("rulebook: the log, the compiler or the receiver is missing")
	}
	if cfg.Writes == nil {
		cfg.Writes = func() bool { return true }
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Book{
		cfg: cfg, builtin: make(map[string]*doppelv1.Rule), writing: make(chan struct{}, 1), wake: make(chan struct{}),
		rules: make(map[string]*doppelv1.Rule), silences: make(map[string]*doppelv1.Silence), versions: make(map[string]lineage),
	}
	for _, r := range alert.Builtin() {
		b.builtin[r.ID] = codec.Rule(&r)
	}
	return b, nil
}

// Run follows the log until ctx ends.
func (b *Book) Run(ctx context.Context) error {
	within, cancel := context.WithCancel(ctx)
	var telling sync.WaitGroup
	telling.Go(func() { b.tell(within) })
	err := b.cfg.Log.FollowRules(ctx, func(next int64) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.known, b.next = true, max(b.next, next)
		b.signal()
	}, b.take)
	cancel()
	telling.Wait()
	if ctx.Err() != nil { // asked to
		return nil //nolint:nilerr // the end of ctx is not its failure
	}
	return fmt.Errorf("rules: %w", err)
}

// take takes a record of the log. What is none of ours is passed over, and said.
func (b *Book) take(key string, value []byte, next int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.apply(key, value); err != nil {
		b.cfg.Logger.Warn("not a record of a rule", "offset", next-1, "key", key, "err", err)
	}
	b.next = next
	b.signal()
}

// signal wakes who waits for what has been read; mu is held.
func (b *Book) signal() {
	close(b.wake)
	b.wake = make(chan struct{})
}

var errKey = errors.New("key and content differ")

func (b *Book) apply(key string, value []byte) error {
	id, silence := strings.CutPrefix(key, ruleset.SilenceKey(""))
	if len(value) == 0 {
		if silence {
			delete(b.silences, id)
		} else {
			delete(b.rules, key)
			delete(b.versions, key)
		}
		return nil
	}
	r := new(doppelv1.RuleRecord)
	if err := proto.Unmarshal(value, r); err != nil {
		return err
	}
	switch {
	case silence && r.GetSilence().GetId() == id:
		b.silences[id] = r.GetSilence()
	case !silence && r.GetRule().GetId() == key && key != "":
		of := b.versions[key]
		of.backwards = r.GetRule().GetVersion() <= of.highest
		of.highest = max(of.highest, r.GetRule().GetVersion())
		b.rules[key], b.versions[key] = r.GetRule(), of
	default:
		return errKey
	}
	return nil
}

// Every partition logs every set it goes over to, whole. Who applies many rules in a row gives them sets as
// often as pause, and pauseRule more for each rule there is; the first atOnce do not wait.
const (
	pause     = 100 * time.Millisecond
	pauseRule = time.Millisecond
	atOnce    = 16
)

// tell publishes the set whenever it has changed: a few changes at once, what follows them together.
func (b *Book) tell(ctx context.Context) {
	pace := rate.NewLimiter(rate.Every(pause), atOnce)
	for {
		b.mu.Lock()
		wake := b.wake
		var in *doppelv1.RulesInput
		next := b.next
		if b.known && next > b.told { // at 0 nobody has ever changed a rule: the built-in ones are in force anyway
			in = &doppelv1.RulesInput{Offset: uint64(b.next), Rules: b.all(), Silences: b.standing()}
		}
		b.mu.Unlock()
		if in == nil {
			select {
			case <-wake:
			case <-ctx.Done():
				return
			}
			continue
		}
		if encoded, err := ruleset.Encode(in); err != nil {
			b.cfg.Logger.ErrorContext(ctx, "rules cannot be written down", "err", err)
		} else {
			b.cfg.Publish(b.cfg.Compiler.Compile(encoded))
		}
		b.mu.Lock()
		b.told = next
		b.signal()
		b.mu.Unlock()
		pace.SetLimit(rate.Every(pause + pauseRule*time.Duration(len(in.GetRules()))))
		if pace.Wait(ctx) != nil { // ctx has ended
			return
		}
	}
}

// all are the rules by id, built-in ones included; mu is held.
func (b *Book) all() []*doppelv1.Rule {
	merged := maps.Clone(b.builtin)
	maps.Copy(merged, b.rules)
	return slices.SortedFunc(maps.Values(merged), func(x, y *doppelv1.Rule) int { return cmp.Compare(x.GetId(), y.GetId()) })
}

// standing are the silences that have not ended, by id; mu is held.
func (b *Book) standing() []*doppelv1.Silence {
	now := b.cfg.Clock()
	all := make([]*doppelv1.Silence, 0, len(b.silences))
	for _, s := range b.silences {
		if !ruleset.Ended(s, now) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(x, y *doppelv1.Silence) int { return cmp.Compare(x.GetId(), y.GetId()) })
	return all
}

// current is a rule as it is; nil: there is none. mu is held.
func (b *Book) current(id string) *doppelv1.Rule {
	if r := b.rules[id]; r != nil {
		return r
	}
	return b.builtin[id]
}

// Rules returns the current rules by id, the built-in ones included, as soon as they are known.
func (b *Book) Rules(ctx context.Context) ([]*doppelv1.Rule, error) {
	if err := b.Await(ctx, 0); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return clones(b.all()), nil
}

// Silences returns those that have not ended, by id.
func (b *Book) Silences(ctx context.Context) ([]*doppelv1.Silence, error) {
	if err := b.Await(ctx, 0); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return clones(b.standing()), nil
}

func clones[M proto.Message](list []M) []M {
	out := make([]M, len(list))
	for i := range list {
		out[i] = proto.CloneOf(list[i])
	}
	return out
}

// Await returns when all records below an offset are read.
func (b *Book) Await(ctx context.Context, next int64) error {
	return b.until(ctx, func() bool { return b.known && b.next >= next })
}

// AwaitPublished returns when they are in a set that was published, or in none as they cannot be.
func (b *Book) AwaitPublished(ctx context.Context, next int64) error {
	return b.until(ctx, func() bool { return b.told >= next })
}

// until waits for ok, which is called with mu held.
func (b *Book) until(ctx context.Context, ok func() bool) error {
	for {
		b.mu.Lock()
		there, wake := ok(), b.wake
		b.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return fmt.Errorf("wait for the rules: %w", ctx.Err())
		}
	}
}
