package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/twin"
	"github.com/doppel-iot/doppel/gateway/auth"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// maxProblems bounds the letters of a redrive that are named in its answer.
	maxProblems = 1000
	// redrivesInFlight bounds the letters on their way back at once.
	redrivesInFlight = 256
	// nearLetters is how far apart two letters asked for may lie to be read in one go.
	nearLetters = 1000
)

// RedriveDeadLetters sends letters to doppel.ingest again, in their order, unless they were sent
// before or would be refused for the same bytes. Calling it again does the rest of a call that failed.
func (s *fleetService) RedriveDeadLetters(ctx context.Context, req *doppelv1.RedriveDeadLettersRequest) (*doppelv1.RedriveDeadLettersResponse, error) {
	if s.letters == nil {
		return s.UnimplementedFleetServiceServer.RedriveDeadLetters(ctx, req)
	}
	sel, err := s.letterChoice(req)
	if err != nil {
		return nil, err
	}
	select { // two at once would send the same letters
	case s.redriving <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r := &redrive{
		letters: s.letters, decoder: s.decoder(), replacement: req.GetReplacementPayload(), dry: req.GetDryRun(),
		resp: &doppelv1.RedriveDeadLettersResponse{}, gate: make(chan struct{}, redrivesInFlight),
	}
	settled := make(chan struct{})
	func() {
		defer func() { // also after a panic
			go func() { // the next call waits for what this one left on its way
				r.sent.Wait()
				<-s.redriving
				close(settled)
			}()
		}()
		err = r.run(ctx, sel)
	}()
	select {
	case <-settled:
		return r.result(err)
	case <-ctx.Done():
		return nil, cmp.Or(err, ctx.Err())
	}
}

// letterChoice is the letters a request is about.
type letterChoice struct {
	offsets []int64 // sorted; none: by filter
	match   filter.Filter
}

func (s *fleetService) letterChoice(req *doppelv1.RedriveDeadLettersRequest) (*letterChoice, error) {
	ids := req.GetIds()
	switch {
	case len(ids) > 0 && req.GetFilter() != "":
		return nil, invalid("filter", "either ids or a filter, not both")
	case len(ids) == 0 && strings.TrimSpace(req.GetFilter()) == "":
		return nil, invalid("ids", `is required, or a filter; the filter "true" takes all letters`)
	case len(ids) > maxIDs:
		return nil, invalid("ids", "more than %d ids", maxIDs)
	case len(req.GetReplacementPayload()) > 0 && len(ids) != 1:
		return nil, invalid("replacement_payload", "replaces the bytes of one letter: name it as the only id")
	}
	sel := &letterChoice{}
	for _, id := range ids {
		offset := letterOffset(id)
		if offset < 0 {
			return nil, invalid("ids", "%q is not the id of a dead letter: want 0-OFFSET", shorten(id))
		}
		sel.offsets = append(sel.offsets, offset)
	}
	slices.Sort(sel.offsets)
	sel.offsets = slices.Compact(sel.offsets)
	var err error
	sel.match, err = compileFilter(s.letterFilter, req.GetFilter())
	return sel, err
}

// each calls fn with the letters selected, oldest first; of a filter, those there are now.
func (sel *letterChoice) each(ctx context.Context, from DeadLetters, fn func(*doppelv1.DeadLetter) error) error {
	if len(sel.offsets) == 0 {
		start, end, err := from.Bounds(ctx)
		if err != nil {
			return err
		}
		return from.Scan(ctx, start, end, func(l *doppelv1.DeadLetter) error {
			ok, err := sel.match.Matches(l)
			if err != nil || !ok {
				return err
			}
			return fn(l)
		})
	}
	_, end, err := from.Bounds(ctx)
	if err != nil {
		return err
	}
	for rest := sel.offsets; len(rest) > 0 && rest[0] < end; {
		n := 1
		for n < len(rest) && rest[n]-rest[n-1] <= nearLetters {
			n++
		}
		near := rest[:n]
		rest = rest[n:]
		err := from.Scan(ctx, near[0], min(end, near[n-1]+1), func(l *doppelv1.DeadLetter) error {
			if _, asked := slices.BinarySearch(near, letterOffset(l.GetId())); !asked {
				return nil
			}
			return fn(l)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// run sends what was selected. Of letters named by id nothing is sent before it is known that all can be.
func (r *redrive) run(ctx context.Context, sel *letterChoice) error {
	if len(sel.offsets) > 0 {
		if err := r.checkNamed(ctx, sel); err != nil {
			return err
		}
	}
	return sel.each(ctx, r.letters, func(l *doppelv1.DeadLetter) error { return r.one(ctx, l) })
}

// checkNamed says what is wrong with ids given: no such letter, or one that cannot be sent.
func (r *redrive) checkNamed(ctx context.Context, sel *letterChoice) error {
	missing := make(map[int64]struct{}, len(sel.offsets))
	for _, o := range sel.offsets {
		missing[o] = struct{}{}
	}
	err := sel.each(ctx, r.letters, func(l *doppelv1.DeadLetter) error {
		delete(missing, letterOffset(l.GetId()))
		if why := notRedrivable(l, r.replacement); why != "" && !l.GetRedriven() {
			return because(codes.FailedPrecondition, "NOT_REDRIVABLE", "dead letter %s cannot be redriven: %s", l.GetId(), why)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, o := range sel.offsets {
		if _, is := missing[o]; is {
			return because(codes.NotFound, "UNKNOWN_DEAD_LETTER", "no dead letter 0-%d: it expired, or never was", o)
		}
	}
	return nil
}

// notRedrivable says why a letter cannot be sent to a twin, whatever its bytes.
func notRedrivable(l *doppelv1.DeadLetter, replacement []byte) string {
	switch {
	case l.GetReason() == string(twin.QuestDBRefused):
		return "it is a row that QuestDB refused; its twin has taken the sample"
	case l.GetDevice() == "":
		return "it is not known which device it is of"
	case !codec.ValidDevice([]byte(l.GetDevice())):
		return fmt.Sprintf("%q is not a device id", shorten(l.GetDevice()))
	case l.GetTruncatedFrom() > 0 && len(replacement) == 0:
		return fmt.Sprintf("only %d of its %d bytes were kept; replace them", len(l.GetPayload()), l.GetTruncatedFrom())
	}
	return ""
}

// redrive is one call under way.
type redrive struct {
	letters     DeadLetters
	decoder     *codec.Decoder
	replacement []byte
	dry         bool
	gate        chan struct{}
	sent        sync.WaitGroup

	mu     sync.Mutex
	resp   *doppelv1.RedriveDeadLettersResponse
	failed error
}

// one deals with one letter. An error ends the call.
func (r *redrive) one(ctx context.Context, l *doppelv1.DeadLetter) error {
	if l.GetRedriven() {
		r.count(&r.resp.AlreadyDone)
		return nil
	}
	if why := notRedrivable(l, r.replacement); why != "" {
		r.problem(&r.resp.NotRedrivable, l, l.GetReason(), why)
		return nil
	}
	m := messageOf(l, r.replacement)
	if refusal := r.check(m); refusal != nil {
		r.problem(&r.resp.RefusedAgain, l, string(refusal.Reason), refusal.Detail)
		return nil //nolint:nilerr // counted
	}
	if r.dry {
		r.count(&r.resp.Redriven)
		return nil
	}
	select {
	case r.gate <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := r.failure(); err != nil {
		return err
	}
	r.sent.Add(1)
	r.letters.Redrive(ctx, l, m, func(err error) {
		defer r.sent.Done()
		defer func() { <-r.gate }()
		if err == nil {
			r.count(&r.resp.Redriven)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.failed == nil {
			r.failed = err
		}
	})
	return nil
}

// check decodes as the twin's owner will. What a twin refuses for what it knows is seen only there.
func (r *redrive) check(m *host.Message) *codec.Refusal {
	switch m.Kind {
	case host.Status:
		_, _, refusal := r.decoder.Status(m.Payload)
		return refusal
	case host.Reported:
		_, refusal := r.decoder.Reported(m.ContentType, m.Payload)
		return refusal
	case host.Telemetry:
	}
	items, refusal := r.decoder.Telemetry(m.ContentType, m.Payload, m.ReceivedAt)
	if refusal != nil && refusal.Reason == twin.ContentType && len(r.replacement) > 0 {
		m.ContentType = "" // corrected bytes speak for themselves
		items, refusal = r.decoder.Telemetry("", m.Payload, m.ReceivedAt)
	}
	for i := 0; i < len(items) && refusal == nil; i++ {
		refusal = items[i].Refusal
	}
	return refusal
}

func (r *redrive) count(n *uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*n++
}

func (r *redrive) problem(n *uint64, l *doppelv1.DeadLetter, reason, detail string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*n++
	if len(r.resp.GetProblems()) < maxProblems {
		r.resp.Problems = append(r.resp.Problems, &doppelv1.RedriveProblem{Id: l.GetId(), Device: l.GetDevice(), Reason: reason, Detail: detail})
	}
}

func (r *redrive) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// result is called when nothing is on its way any more.
func (r *redrive) result(err error) (*doppelv1.RedriveDeadLettersResponse, error) {
	failed := r.failure()
	switch {
	case failed != nil && !errors.Is(failed, context.Canceled) && !errors.Is(failed, context.DeadlineExceeded):
		return nil, withDetails(codes.Unavailable, fmt.Sprintf("%d letters were redriven, then the log failed; call again to go on: %v", r.resp.GetRedriven(), failed),
			&errdetails.ErrorInfo{Reason: "LOG_UNAVAILABLE", Domain: auth.Domain}, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
	case err != nil:
		return nil, err
	case failed != nil:
		return nil, failed
	}
	return r.resp, nil
}

// messageOf is what the device sent, corrected: received when it was, once more among the letters.
func messageOf(l *doppelv1.DeadLetter, replacement []byte) *host.Message {
	m := &host.Message{
		Kind: host.Telemetry, Attempts: uint8(min(l.GetAttempts(), math.MaxUint8-1) + 1), Device: []byte(l.GetDevice()), Payload: l.GetPayload(),
		ContentType: l.GetContentType(), ReceivedAt: l.GetReceiveTime().AsTime().UnixNano(), Topic: l.GetSourceTopic(),
	}
	if len(replacement) > 0 {
		m.Payload = replacement
	}
	for kind, name := range map[host.MessageKind]string{host.Telemetry: "telemetry", host.Status: "status", host.Reported: "reported"} {
		if root, ok := strings.CutSuffix(l.GetSourceTopic(), "/"+l.GetDevice()+"/"+name); ok {
			m.Kind, m.Topic = kind, root
		}
	}
	return m
}
