package api

import (
	"context"
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// countLetters is how many letters, the newest, the first page counts by reason.
	countLetters = 1_000_000
	// searchLetters is how many letters a further page looks at before it ends, full or not.
	searchLetters = 100_000
	// Letters are read oldest first, and shown newest first: in windows of offsets that begin small,
	// because the first page is mostly all that is wanted.
	firstWindow, lastWindow = 1 << 10, 1 << 16
	// pageBytes bounds the payloads of a page, so that it fits a message of gRPC (4 MiB at clients). A
	// single letter has at most 900 KiB.
	pageBytes = 2 << 20
)

// DeadLetters is doppel.dlq: letters by offsets of its one partition, and the way back to their twins.
type DeadLetters interface {
	// Bounds are the offsets of the oldest letter and behind the newest.
	Bounds(ctx context.Context) (start, end int64, err error)
	// Scan calls fn with each letter of from <= offset < to that is still there, in order, until it
	// fails. Their ids are 0-OFFSET. fn may keep what it gets.
	Scan(ctx context.Context, from, to int64, fn func(*doppelv1.DeadLetter) error) error
	// Redrive sends m in place of letter of and remembers durably that it was sent. done is called
	// exactly once, from another goroutine. Messages of a device arrive in the order of the calls.
	Redrive(ctx context.Context, of *doppelv1.DeadLetter, m *host.Message, done func(error))
}

// ListDeadLetters returns one page of the letters that match, newest first: behind the letter where
// the page before ended, so that pages stay as they are while letters are added.
func (s *fleetService) ListDeadLetters(ctx context.Context, req *doppelv1.ListDeadLettersRequest) (*doppelv1.ListDeadLettersResponse, error) {
	if s.letters == nil {
		return s.UnimplementedFleetServiceServer.ListDeadLetters(ctx, req)
	}
	match, err := compileFilter(s.letterFilter, req.GetFilter())
	if err != nil {
		return nil, err
	}
	m, err := newMask(req.GetReadMask(), (*doppelv1.DeadLetter)(nil))
	if err != nil {
		return nil, err
	}
	size := req.GetPageSize()
	switch {
	case size < 0:
		return nil, negativePage(size, maxPage)
	case size == 0:
		size = defaultPage
	}
	p := letterPage{match: match, mask: m, size: int(min(size, maxPage))}
	start, end, err := s.letters.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	if token := req.GetPageToken(); token != "" {
		before, err := parseLettersToken(token, req.GetFilter())
		if err != nil {
			return nil, err
		}
		end = min(end, before)
	} else {
		p.byReason = map[string]uint64{}
	}
	next, err := p.read(ctx, s.letters, start, end)
	if err != nil {
		return nil, err
	}
	resp := &doppelv1.ListDeadLettersResponse{DeadLetters: p.letters, ByReason: p.byReason}
	if next > start {
		resp.NextPageToken = lettersToken(next, req.GetFilter())
	}
	return resp, nil
}

// letterPage collects one page.
type letterPage struct {
	match    filter.Filter
	mask     mask
	size     int
	byReason map[string]uint64 // nil: not the first page

	letters []*doppelv1.DeadLetter // newest first
	bytes   int
	full    bool
	last    int64 // offset of the last of letters, once full

	window []placedLetter // those of the window being read that may get in
}

type placedLetter struct {
	offset int64
	letter *doppelv1.DeadLetter
	bytes  int
}

// read goes through letters from end downwards and returns where the next page ends: start if there
// is nothing more.
func (p *letterPage) read(ctx context.Context, from DeadLetters, start, end int64) (next int64, err error) {
	more := false // something below matches and did not get in
	to := end
	for size := int64(firstWindow); to > start; size = min(2*size, lastWindow) {
		limit := int64(searchLetters)
		if p.byReason != nil {
			limit = countLetters
		}
		if end-to >= limit || p.byReason == nil && p.full {
			break
		}
		low := max(start, to-size)
		left, room := p.size-len(p.letters), pageBytes-p.bytes
		held := 0
		err := from.Scan(ctx, low, to, func(l *doppelv1.DeadLetter) error {
			ok, err := p.match.Matches(l)
			if err != nil || !ok {
				return err
			}
			if p.byReason != nil {
				p.byReason[l.GetReason()]++
			}
			if p.full {
				more = true
				return nil
			}
			w := placedLetter{offset: letterOffset(l.GetId()), letter: l}
			p.mask.prune(l.ProtoReflect())
			w.bytes = len(l.GetPayload()) + len(l.GetDetail()) + 256
			p.window, held = append(p.window, w), held+w.bytes
			// Of a window the newest get in; one alone on its page always does.
			for len(p.window) > left || held > room && (len(p.window) > 1 || len(p.letters) > 0) {
				held -= p.window[0].bytes
				p.window[0], p.window, more = placedLetter{}, p.window[1:], true
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		p.take(more)
		to = low
	}
	switch {
	case p.full && (more || to > start):
		return p.last, nil
	case p.full:
		return start, nil
	default:
		return to, nil
	}
}

// take moves a window to the page. cut: the page took less than there was.
func (p *letterPage) take(cut bool) {
	if p.full {
		return
	}
	for _, w := range slices.Backward(p.window) {
		p.letters, p.bytes, p.last = append(p.letters, w.letter), p.bytes+w.bytes, w.offset
	}
	clear(p.window)
	p.window = p.window[:0]
	p.full = len(p.letters) > 0 && (cut || len(p.letters) == p.size)
}

// letterOffset is -1 for what is no id of a letter.
func letterOffset(id string) int64 {
	digits, ok := strings.CutPrefix(id, "0-")
	offset, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || offset < 0 || id != "0-"+strconv.FormatInt(offset, 10) {
		return -1
	}
	return offset
}

func lettersToken(before int64, filter string) string {
	b := binary.LittleEndian.AppendUint64(nil, xxhash.Sum64String(filter))
	return sealToken(tokenLetters, binary.AppendUvarint(b, uint64(before)))
}

func parseLettersToken(token, filter string) (before int64, err error) {
	b, err := openToken("page_token", tokenLetters, token)
	if err != nil {
		return 0, err
	}
	r := tokenReader{b: b}
	if r.fixed64() != xxhash.Sum64String(filter) {
		return 0, invalid("page_token", "belongs to another filter")
	}
	n := r.uvarint()
	if n > math.MaxInt64 {
		r.bad = true
	}
	return int64(n), r.end("page_token")
}
