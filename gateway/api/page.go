package api

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// page collects one page of a list: the first size messages behind a key. The token of the next
// page is the key of the last message, not a count, so that pages stay stable while the list
// changes: nothing that was there throughout is shown twice or left out (unless it moves across
// the boundary in the order asked for).
type page[M proto.Message] struct {
	order order
	size  int
	hash  uint64 // of what the token is bound to
	after *sortKey
	items []pageItem[M]
	more  bool
	bound bool // items[size-1] is the worst that can still get in
}

type pageItem[M proto.Message] struct {
	key sortKey
	msg M
}

func newPage[M proto.Message](o order, filter string, size int32, token string) (*page[M], error) {
	switch {
	case size < 0:
		return nil, invalid("page_size", "negative")
	case size == 0:
		size = defaultPage
	case size > maxPage:
		size = maxPage
	}
	p := &page[M]{order: o, size: int(size), hash: xxhash.Sum64String(o.text + "\x00" + filter)}
	if token == "" {
		return p, nil
	}
	b, err := openToken("page_token", tokenPage, token)
	if err != nil {
		return nil, err
	}
	r := tokenReader{b: b}
	if r.fixed64() != p.hash {
		return nil, invalid("page_token", "belongs to another filter or order")
	}
	key := readKey(&r, len(o.keys))
	if err := r.end("page_token"); err != nil {
		return nil, err
	}
	p.after = &key
	return p, nil
}

// add offers a message. Amortised it costs a comparison and, for one that gets in, a share of a sort
// of twice the page.
func (p *page[M]) add(msg M, id string) {
	key := p.order.keyOf(msg, id)
	if p.after != nil && p.order.compare(key, *p.after) <= 0 {
		return
	}
	if p.bound && p.order.compare(key, p.items[p.size-1].key) > 0 {
		p.more = true
		return
	}
	p.items = append(p.items, pageItem[M]{key: key, msg: msg})
	if len(p.items) >= 2*p.size {
		p.cut()
	}
}

func (p *page[M]) cut() {
	slices.SortFunc(p.items, func(a, b pageItem[M]) int { return p.order.compare(a.key, b.key) })
	if len(p.items) > p.size {
		p.more = true
		clear(p.items[p.size:])
		p.items = p.items[:p.size]
	}
	p.bound = len(p.items) == p.size
}

// result returns the page, sorted, and the token of the next one, empty on the last.
func (p *page[M]) result() ([]M, string) {
	p.cut()
	msgs := make([]M, len(p.items))
	for i := range p.items {
		msgs[i] = p.items[i].msg
	}
	if !p.more {
		return msgs, ""
	}
	b := binary.LittleEndian.AppendUint64(nil, p.hash)
	return msgs, sealToken(tokenPage, appendKey(b, p.items[len(p.items)-1].key))
}

func appendKey(b []byte, k sortKey) []byte {
	for _, v := range k.values {
		b = append(b, byte(v.kind))
		switch v.kind {
		case keyInt:
			b = binary.LittleEndian.AppendUint64(b, uint64(v.i))
		case keyUint:
			b = binary.LittleEndian.AppendUint64(b, v.u)
		case keyFloat:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.num))
		case keyString:
			b = binary.AppendUvarint(b, uint64(len(v.s)))
			b = append(b, v.s...)
		case keyAbsent:
		}
	}
	b = binary.AppendUvarint(b, uint64(len(k.id)))
	return append(b, k.id...)
}

func readKey(r *tokenReader, n int) sortKey {
	var k sortKey
	for range n {
		v := keyValue{kind: keyKind(r.uvarint())}
		switch v.kind {
		case keyInt:
			v.i = int64(r.fixed64())
		case keyUint:
			v.u = r.fixed64()
		case keyFloat:
			v.num = math.Float64frombits(r.fixed64())
		case keyString:
			v.s = string(r.bytes())
		case keyAbsent:
		default:
			r.bad = true
		}
		k.values = append(k.values, v)
	}
	k.id = string(r.bytes())
	return k
}
