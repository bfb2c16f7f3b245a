package query

import (
	"context"
	"io"
	"slices"
	"sync"

	"github.com/doppel-iot/doppel/actors/filter"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// scan is one walk over all twins. A partition is walked in order of ids, so that one that moves
// meanwhile is gone on with at its new owner behind the last id seen: no twin comes twice, and none
// that was there throughout is left out.
type scan struct {
	r     *Reader
	match filter.Filter
	fn    func(*doppelv1.Twin) bool
	after map[int32]string
	left  map[int32]struct{} // partitions that are not done
	ended bool               // by fn
}

// EachTwin calls fn, from the caller's goroutine, with every twin that passes a filter until it returns false. Unless all
// partitions can be read fn is not called at all; those that move meanwhile may still end it with a
// host.ErrUnavailable.
func (r *Reader) EachTwin(ctx context.Context, match filter.Filter, fn func(*doppelv1.Twin) bool) error {
	s := &scan{r: r, match: match, fn: fn, after: make(map[int32]string), left: make(map[int32]struct{})}
	ps := r.all()
	for _, p := range ps {
		s.left[p] = struct{}{}
	}
	tried := make(map[int32]Route)
	why := ""
	for {
		groups := make(map[Route][]int32)
		var stuck []int32
		for p := range s.left {
			to := r.cfg.Route(p)
			if before, again := tried[p]; again && before == to || !to.Local && to.Address == "" {
				stuck = append(stuck, p)
				continue
			}
			tried[p] = to
			groups[to] = append(groups[to], p)
		}
		if len(stuck) > 0 {
			return unavailable(stuck, why)
		}
		m, err := s.round(ctx, groups)
		if err != nil || s.ended || len(s.left) == 0 {
			return overdue(m.late, err)
		}
		why = m.why
	}
}

// source is a stream of pages that was opened: it is known to serve what it was asked for.
type source func(ctx context.Context, out func(page) error) (missed, error)

// round walks groups of partitions at the same time. If one of them is not to be had, none is walked.
func (s *scan) round(ctx context.Context, groups map[Route][]int32) (missed, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sources, m, err := s.open(ctx, groups)
	if err != nil || len(m.partitions) > 0 {
		return m, err
	}
	pages := make(chan page)
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		bad error
	)
	for _, from := range sources {
		wg.Go(func() {
			lost, err := from(ctx, func(p page) error {
				select {
				case pages <- p:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			mu.Lock()
			defer mu.Unlock()
			m.late = append(m.late, lost.late...)
			if lost.why != "" {
				m.why = lost.why
			}
			if err != nil && bad == nil {
				bad = err
				cancel()
			}
		})
	}
	go func() { wg.Wait(); close(pages) }()
	for p := range pages {
		if s.ended {
			continue
		}
		s.take(p)
		if s.ended {
			cancel()
		}
	}
	if s.ended {
		return missed{}, nil
	}
	return m, bad
}

func (s *scan) take(p page) {
	for _, t := range p.twins {
		s.after[p.partition] = t.GetId()
		if !s.fn(t) {
			s.ended = true
			return
		}
	}
	if p.done {
		delete(s.left, p.partition)
	}
}

func (s *scan) open(ctx context.Context, groups map[Route][]int32) (sources []source, _ missed, _ error) {
	var mu sync.Mutex
	sum, err := s.r.askGroups(ctx, groups, func(_ context.Context, to Route, ps []int32) (missed, error) {
		slices.Sort(ps)
		var from source
		var m missed
		if to.Local {
			from, m = s.local(ps)
		} else {
			var err error
			m, err = s.r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
				from, m, err = s.remote(ctx, c, to.Address, ps)
				return m, err
			})
			if err != nil {
				return m, err
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if from != nil {
			sources = append(sources, from)
		}
		return m, nil
	})
	return sources, sum, err
}

func (s *scan) local(ps []int32) (source, missed) {
	var m missed
	for _, p := range ps {
		if !serves(s.r.cfg.Host, p) {
			m.partitions = append(m.partitions, p)
		}
	}
	after := make(map[int32]string, len(ps))
	for _, p := range ps {
		after[p] = s.after[p]
	}
	return func(ctx context.Context, out func(page) error) (missed, error) {
		return each(ctx, ps, func(ctx context.Context, p int32) error { return walk(ctx, s.r.cfg.Host, p, s.match, after[p], out) })
	}, m
}

func (s *scan) remote(ctx context.Context, c doppelv1.QueryServiceClient, address string, ps []int32) (source, missed, error) {
	req := &doppelv1.ScanTwinsRequest{Filter: s.match.String()}
	for _, p := range ps {
		req.Partitions = append(req.Partitions, &doppelv1.PartitionScan{Partition: p, After: s.after[p]})
	}
	ctx, patience := newPatience(ctx, s.r.cfg.Patience)
	stream, err := c.ScanTwins(ctx, req)
	if err != nil {
		patience.stop()
		return nil, missed{}, err
	}
	first, err := stream.Recv()
	patience.end()
	if err != nil {
		patience.stop()
		return nil, missed{}, err
	}
	if len(first.GetNotServed()) > 0 {
		patience.stop()
		return nil, missed{partitions: first.GetNotServed()}, nil
	}
	return func(ctx context.Context, out func(page) error) (missed, error) {
		defer patience.stop()
		left := slices.Clone(ps)
		// What a page did not say is done is asked again.
		m, err := s.r.remote(ctx, address, nil, func(context.Context, doppelv1.QueryServiceClient) (missed, error) {
			for {
				patience.begin()
				resp, err := stream.Recv()
				patience.end()
				if err == io.EOF { //nolint:errorlint // Recv returns it bare
					return missed{}, nil
				}
				if err != nil {
					return missed{}, err
				}
				if len(resp.GetNotServed()) > 0 {
					continue
				}
				if err := out(page{resp.GetPartition(), resp.GetTwins(), resp.GetDone()}); err != nil {
					return missed{}, err
				}
				if resp.GetDone() {
					left = slices.DeleteFunc(left, func(p int32) bool { return p == resp.GetPartition() })
				}
			}
		})
		if err != nil {
			m.late = left
		}
		return m, err
	}, missed{}, nil
}
