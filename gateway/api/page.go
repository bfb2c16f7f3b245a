package api

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/selection"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// page collects one page of a list: the first few messages behind a key. The token of the next
// page is the key of the last message, not a count, so that pages stay stable while the list
// changes: nothing that was there throughout is shown twice or left out (unless it moves across
// the boundary in the order asked for).
type page[M proto.Message] struct {
	place pagePlace
	first *selection.First[M]
}

// pagePlace is where a page begins, and how large it may be.
type pagePlace struct {
	order selection.Order
	size  int
	hash  uint64 // of what the token is bound to
	after *selection.Key
}

func newPagePlace(o selection.Order, filter string, size int32, token string) (pagePlace, error) {
	switch {
	case size < 0:
		return pagePlace{}, negativePage(size, maxPage)
	case size == 0:
		size = defaultPage
	case size > maxPage:
		size = maxPage
	}
	p := pagePlace{order: o, size: int(size), hash: xxhash.Sum64String(o.String() + "\x00" + filter)}
	if token == "" {
		return p, nil
	}
	b, err := openToken("page_token", tokenPage, token)
	if err != nil {
		return p, err
	}
	r := tokenReader{b: b}
	if hash := r.fixed64(); r.bad || hash != p.hash {
		return p, invalid("page_token", "belongs to another filter or order")
	}
	key, ok := o.ReadKey(r.b)
	if !ok {
		return p, invalid("page_token", "not a token of this service: wrong content")
	}
	p.after = &key
	return p, nil
}

func negativePage(size int32, most int) error {
	return invalid("page_size", "%d is negative: want at most %d, or 0 for the default", size, most)
}

// token is that of the page behind a key.
func (p *pagePlace) token(last selection.Key) string {
	return sealToken(tokenPage, last.Append(binary.LittleEndian.AppendUint64(nil, p.hash)))
}

func newPage[M proto.Message](o selection.Order, filter string, size int32, token string) (*page[M], error) {
	place, err := newPagePlace(o, filter, size, token)
	if err != nil {
		return nil, err
	}
	return &page[M]{place: place, first: selection.NewFirst[M](o, place.size, place.after)}, nil
}

// add offers a message.
func (p *page[M]) add(msg M, id string) { p.first.Add(p.place.order.KeyOf(msg, id), msg) }

// result returns the page, sorted, and the token of the next one, empty on the last.
func (p *page[M]) result() ([]M, string) {
	items, more := p.first.Result()
	msgs := make([]M, len(items))
	for i := range items {
		msgs[i] = items[i].Value
	}
	if !more {
		return msgs, ""
	}
	return msgs, p.place.token(items[len(items)-1].Key)
}
