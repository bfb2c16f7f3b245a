package rulebook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/ruleset"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

var (
	// ErrNotWriter answers where another node is to write.
	ErrNotWriter = errors.New("another node writes the rules")
	// ErrUnknownRule answers for an id that no rule has.
	ErrUnknownRule = errors.New("unknown rule")
	// ErrUnknownSilence answers for an id that no silence has.
	ErrUnknownSilence = errors.New("unknown silence")
	// ErrFull answers when there are as many as may be.
	ErrFull = errors.New("there are too many")
	// ErrContended answers when others wrote the same at the same time, again and again.
	ErrContended = errors.New("another node writes the same rule")
)

const (
	// patience bounds a write, so that a log that hangs does not hold those behind it for ever.
	patience = 10 * time.Second
	// attempts is how often a write is looked at again that another stands in front of.
	attempts = 5
	// keepEnded is how long a silence is kept after its end, for who looks into the topic.
	keepEnded = time.Hour
	// sweptAtOnce bounds how many of those one write removes.
	sweptAtOnce = 100
)

// Checked is a rule as it would be after Change, with what is wrong with it as an error. It writes nothing.
func (b *Book) Checked(ctx context.Context, r *doppelv1.Rule, by string) (*doppelv1.Rule, error) {
	if err := b.Await(ctx, 0); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	next, _, err := b.applied(r, by)
	return next, err
}

// Change does one write and returns when this node itself has read it. It is for the node that may write.
func (b *Book) Change(ctx context.Context, w *doppelv1.WriteRulesRequest) (*doppelv1.WriteRulesResponse, error) {
	select {
	case b.writing <- struct{}{}:
		defer func() { <-b.writing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	bound, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := b.change(bound, w)
	if err != nil && bound.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("the log does not answer: %w", ErrNotWriter)
	}
	return resp, err
}

func (b *Book) change(ctx context.Context, w *doppelv1.WriteRulesRequest) (*doppelv1.WriteRulesResponse, error) {
	for range attempts {
		if !b.cfg.Writes() {
			return nil, ErrNotWriter
		}
		end, err := b.cfg.Log.RulesEnd(ctx)
		if err != nil {
			return nil, err
		}
		if err := b.Await(ctx, end); err != nil {
			return nil, err
		}
		b.sweep(ctx)
		b.mu.Lock()
		resp, key, record, err := b.decide(w)
		next := b.next
		b.mu.Unlock()
		if err != nil {
			return nil, err
		}
		resp.Offset = uint64(next)
		if key == "" {
			return resp, nil // nothing to change
		}
		offset, err := b.put(ctx, key, record)
		if err != nil {
			return nil, err
		}
		if resp.Offset = uint64(offset) + 1; offset == next || record == nil {
			return resp, nil
		}
		// Another node wrote, too. If that was the same rule, ours must be the newer version.
		if b.stands(resp) {
			return resp, nil
		}
	}
	return nil, ErrContended
}

// put writes one record and waits for it.
func (b *Book) put(ctx context.Context, key string, record *doppelv1.RuleRecord) (offset int64, err error) {
	var value []byte
	if record != nil {
		if value, err = (proto.MarshalOptions{Deterministic: true}).Marshal(record); err != nil {
			return 0, fmt.Errorf("rule %q: %w", key, err)
		}
	}
	if offset, err = b.cfg.Log.PutRule(ctx, key, value); err != nil {
		return 0, err
	}
	return offset, b.Await(ctx, offset+1)
}

// stands says whether what was written is what is known now, and the newest.
func (b *Book) stands(resp *doppelv1.WriteRulesResponse) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := resp.GetRule(); r != nil {
		return !b.versions[r.GetId()].backwards && proto.Equal(b.rules[r.GetId()], r)
	}
	return proto.Equal(b.silences[resp.GetSilence().GetId()], resp.GetSilence())
}

// decide is what a write comes to: its answer, and the record for a key, nil for a tombstone; no key: nothing
// is to be written. mu is held.
func (b *Book) decide(w *doppelv1.WriteRulesRequest) (resp *doppelv1.WriteRulesResponse, key string, record *doppelv1.RuleRecord, err error) {
	resp = &doppelv1.WriteRulesResponse{}
	switch in := w.GetWrite().(type) {
	case *doppelv1.WriteRulesRequest_Apply:
		r, same, err := b.applied(in.Apply, w.GetBy())
		if resp.Rule = r; err != nil || same {
			return resp, "", nil, err
		}
		return resp, r.GetId(), &doppelv1.RuleRecord{Rule: r}, nil
	case *doppelv1.WriteRulesRequest_Delete:
		switch {
		case b.rules[in.Delete] != nil:
			return resp, in.Delete, nil, nil
		case b.builtin[in.Delete] != nil:
			return resp, "", nil, nil // it is as it was
		}
		return nil, "", nil, fmt.Errorf("rule %q: %w", in.Delete, ErrUnknownRule)
	case *doppelv1.WriteRulesRequest_Silence:
		s := in.Silence
		if _, err := b.cfg.Compiler.Silence(s); err != nil {
			return nil, "", nil, err
		}
		if had := b.silences[s.GetId()]; had != nil { // the same call, a second time
			resp.Silence = had
			return resp, "", nil, nil
		}
		if len(b.standing()) >= MaxSilences {
			return nil, "", nil, fmt.Errorf("silences: %w: at most %d: expire some", ErrFull, MaxSilences)
		}
		resp.Silence = s
		return resp, ruleset.SilenceKey(s.GetId()), &doppelv1.RuleRecord{Silence: s}, nil
	case *doppelv1.WriteRulesRequest_Expire:
		had := b.silences[in.Expire]
		if had == nil {
			return nil, "", nil, fmt.Errorf("silence %q: %w", in.Expire, ErrUnknownSilence)
		}
		now := b.cfg.Clock()
		if resp.Silence = had; ruleset.Ended(had, now) {
			return resp, "", nil, nil
		}
		ended := proto.CloneOf(had)
		ended.EndTime = timestamppb.New(now)
		resp.Silence = ended
		return resp, ruleset.SilenceKey(in.Expire), &doppelv1.RuleRecord{Silence: ended}, nil
	default:
		return nil, "", nil, &ruleset.Invalid{Field: "write", Text: "there is none"}
	}
}

// applied is a rule as it is after it was applied, and whether it is that already. mu is held.
func (b *Book) applied(r *doppelv1.Rule, by string) (next *doppelv1.Rule, same bool, err error) {
	compiled, err := b.cfg.Compiler.Rule(r)
	if err != nil {
		return nil, false, err
	}
	next = plain(r)
	had, of := b.current(compiled.ID), b.versions[compiled.ID]
	if had != nil && !of.backwards && proto.Equal(plain(had), next) {
		return had, true, nil
	}
	if had == nil && len(b.all()) >= MaxRules {
		return nil, false, fmt.Errorf("rules: %w: at most %d: delete some", ErrFull, MaxRules)
	}
	next.Version, next.UpdateTime, next.UpdatedBy = max(had.GetVersion(), of.highest)+1, timestamppb.New(b.cfg.Clock()), by
	return next, false, nil
}

// plain is what a person writes of a rule, the same way for the same rule.
func plain(r *doppelv1.Rule) *doppelv1.Rule {
	r = proto.CloneOf(r)
	r.Version, r.UpdateTime, r.UpdatedBy = 0, nil, ""
	if r.GetMode() == "" {
		r.Mode = alert.ModeLive
	}
	if m := r.GetMatch(); m.GetDevice() == "" && len(m.GetTags()) == 0 {
		r.Match = nil
	}
	return r
}

// sweep removes silences that ended long ago.
func (b *Book) sweep(ctx context.Context) {
	b.mu.Lock()
	var ids []string
	past := b.cfg.Clock().Add(-keepEnded)
	for id, s := range b.silences {
		if ruleset.Ended(s, past) && len(ids) < sweptAtOnce {
			ids = append(ids, id)
		}
	}
	b.mu.Unlock()
	for _, id := range ids {
		if _, err := b.put(ctx, ruleset.SilenceKey(id), nil); err != nil {
			b.cfg.Logger.WarnContext(ctx, "silence that has ended not removed", "silence", id, "err", err)
			return
		}
	}
}
