package query

import (
	"context"
	"io"
	"sync"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/selection"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// chosen are the first twins of those that some partitions, or some nodes, have. It is safe for
// concurrent use.
type chosen struct {
	mu    sync.Mutex
	first *selection.First[*doppelv1.Twin] // nil: not read yet
	more  bool
	count int64
}

func newChosen(q *host.Query) *chosen {
	return &chosen{first: selection.NewFirst[*doppelv1.Twin](q.Order, q.Limit, q.After)}
}

func (c *chosen) add(s *host.Selected) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count += s.Count
	c.more = c.more || s.More
	for i, key := range s.Keys {
		var t *doppelv1.Twin
		if s.Twins != nil {
			if t = s.Twins[i]; t == nil {
				continue
			}
		}
		c.first.Add(key, t)
	}
}

// result reads the twins that were not read yet.
func (c *chosen) result(read func(ids []string) ([]*doppelv1.Twin, error)) (*host.Selected, error) {
	items, more := c.first.Result()
	s := &host.Selected{More: c.more || more, Count: c.count}
	var ids []string
	for i := range items {
		if items[i].Value == nil {
			ids = append(ids, items[i].Key.ID())
		}
	}
	byID := make(map[string]*doppelv1.Twin, len(ids))
	for len(ids) > 0 {
		n := min(scanChunk, len(ids))
		twins, err := read(ids[:n])
		if err != nil {
			return nil, err
		}
		for _, t := range twins {
			byID[t.GetId()] = t
		}
		ids = ids[n:]
	}
	for i := range items {
		t := items[i].Value
		if t == nil {
			t = byID[items[i].Key.ID()]
		}
		s.Keys, s.Twins = append(s.Keys, items[i].Key), append(s.Twins, t)
	}
	return s, nil
}

// SelectTwins finds the first twins in an order that pass a filter, of all there are. A twin is as it was
// a moment after it was found; one that was deleted in that moment is nil.
func (r *Reader) SelectTwins(ctx context.Context, q *host.Query) (*host.Selected, error) {
	all := newChosen(q)
	err := r.ask(ctx, r.all(), func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return each(ctx, ps, func(ctx context.Context, p int32) error {
				s, err := r.cfg.Host.Select(ctx, p, q)
				if err == nil {
					all.add(s)
				}
				return err
			})
		}
		return r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (missed, error) {
			s, m, err := r.selectAt(ctx, c, ps, q)
			if err == nil {
				all.add(s)
			}
			return m, err
		})
	})
	if err != nil {
		return nil, err
	}
	return all.result(func(ids []string) ([]*doppelv1.Twin, error) { return r.Twins(ctx, ids) })
}

// selectAt asks another node.
func (r *Reader) selectAt(ctx context.Context, c doppelv1.QueryServiceClient, ps []int32, q *host.Query) (s *host.Selected, m missed, err error) {
	req := &doppelv1.SelectTwinsRequest{Partitions: ps, Filter: q.Filter.String(), OrderBy: q.Order.String(), Limit: int32(q.Limit), Count: true}
	if q.After != nil {
		req.After = q.After.Append(nil)
	}
	ctx, patience := newPatience(ctx, r.cfg.Patience)
	defer patience.stop()
	stream, err := c.SelectTwins(ctx, req)
	if err != nil {
		return nil, m, err
	}
	s = &host.Selected{Twins: []*doppelv1.Twin{}}
	for {
		patience.begin()
		resp, err := stream.Recv()
		patience.end()
		if err == io.EOF { //nolint:errorlint // Recv returns it bare
			return nil, m, io.ErrUnexpectedEOF // the end is a message of its own
		}
		if err != nil {
			return nil, m, err
		}
		m.partitions = append(m.partitions, resp.GetNotServed()...)
		for i, t := range resp.GetTwins() {
			if i >= len(resp.GetKeys()) {
				return nil, m, errForeign
			}
			key, ok := q.Order.ReadKey(resp.GetKeys()[i])
			if !ok {
				return nil, m, errForeign
			}
			s.Keys, s.Twins = append(s.Keys, key), append(s.Twins, t)
		}
		if resp.GetDone() {
			s.Count, s.More = resp.GetCount(), resp.GetMore()
			return s, m, nil
		}
	}
}

// AggregateTwins counts the twins that pass a filter, in groups.
func (r *Reader) AggregateTwins(ctx context.Context, f filter.Filter, req *doppelv1.AggregateTwinsRequest) (*doppelv1.AggregateTwinsResponse, error) {
	by, err := selection.ParseGrouping(req)
	if err != nil {
		return nil, err
	}
	sum := &sums{groups: selection.NewGroups(by)}
	err = r.ask(ctx, r.all(), func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return each(ctx, ps, func(ctx context.Context, p int32) error { return sum.count(ctx, r.cfg.Host, p, f, by) })
		}
		return r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (missed, error) {
			groups, m, err := r.summarizeAt(ctx, c, ps, req)
			if err == nil {
				err = sum.add(groups)
			}
			return m, err
		})
	})
	if err != nil {
		return nil, err
	}
	return sum.groups.Response(), nil
}

func (r *Reader) summarizeAt(ctx context.Context, c doppelv1.QueryServiceClient, ps []int32, req *doppelv1.AggregateTwinsRequest) (groups []*doppelv1.TwinSketch, m missed, err error) {
	ctx, patience := newPatience(ctx, r.cfg.Patience)
	defer patience.stop()
	stream, err := c.SummarizeTwins(ctx, &doppelv1.SummarizeTwinsRequest{Partitions: ps, Aggregate: req})
	if err != nil {
		return nil, m, err
	}
	for {
		patience.begin()
		resp, err := stream.Recv()
		patience.end()
		if err == io.EOF { //nolint:errorlint // Recv returns it bare
			return nil, m, io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, m, err
		}
		m.partitions = append(m.partitions, resp.GetNotServed()...)
		groups = append(groups, resp.GetGroups()...)
		if resp.GetDone() {
			return groups, m, nil
		}
	}
}

// sums are groups that several partitions, or several nodes, counted. It is safe for concurrent use.
type sums struct {
	mu     sync.Mutex
	groups *selection.Groups
}

func (s *sums) add(groups []*doppelv1.TwinSketch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range groups {
		s.groups.AddProto(g)
	}
	return s.groups.Err()
}

// count adds a partition of this node, all of it or nothing.
func (s *sums) count(ctx context.Context, h Host, p int32, f filter.Filter, by *selection.Grouping) error {
	own := selection.NewGroups(by)
	if err := h.Summarize(ctx, p, f, by, own); err != nil {
		return err
	}
	return s.add(own.Protos())
}
