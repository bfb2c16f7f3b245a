package query

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/actors/selection"
	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// lookBeat is how often a node that looks through its twins says that it is there.
	lookBeat = 500 * time.Millisecond
	// answerGroups is how many groups go into one message.
	answerGroups = 256
	// maxLimit is the largest page there is.
	maxLimit = 1000
)

// errForeign says that another node answered what it cannot have been asked.
var errForeign = status.Error(codes.Internal, "another node answered with twins that have no place in the order: are all nodes of one version?")

// twinFilters compiles what other nodes ask for.
var twinFilters = sync.OnceValues(func() (*filter.Env, error) { return filter.NewEnv(&doppelv1.Twin{}) })

func compileFilter(text string) (filter.Filter, error) {
	env, err := twinFilters()
	if err != nil {
		return filter.Filter{}, err
	}
	f, err := env.Compile(text)
	if err != nil {
		return f, status.Error(codes.InvalidArgument, "filter: "+err.Error())
	}
	return f, nil
}

// beating calls say every lookBeat while work runs.
func beating(say func() error, work func() error) error {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		t := time.NewTicker(lookBeat)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if say() != nil {
					return // the stream is gone, and its context tells the work
				}
			case <-stop:
				return
			}
		}
	}()
	err := work()
	close(stop)
	<-stopped
	return err
}

// SelectTwins implements the service.
func (s *Server) SelectTwins(req *doppelv1.SelectTwinsRequest, stream grpc.ServerStreamingServer[doppelv1.SelectTwinsResponse]) error {
	q, err := s.query(req)
	if err != nil {
		return err
	}
	all := newChosen(q)
	var m missed
	var got *host.Selected
	err = beating(func() error { return stream.Send(&doppelv1.SelectTwinsResponse{}) }, func() (err error) {
		m, err = each(stream.Context(), req.GetPartitions(), func(ctx context.Context, p int32) error {
			found, err := s.host.Select(ctx, p, q)
			if err == nil {
				all.add(found)
			}
			return err
		})
		if err != nil {
			return err
		}
		got, err = all.result(func(ids []string) ([]*doppelv1.Twin, error) {
			return s.twins(stream.Context(), req.GetPartitions(), ids)
		})
		return err
	})
	if err != nil {
		return toStatus(err)
	}
	if len(m.partitions) > 0 {
		if err := stream.Send(&doppelv1.SelectTwinsResponse{NotServed: m.partitions}); err != nil {
			return err
		}
	}
	resp := &doppelv1.SelectTwinsResponse{}
	for i, t := range got.Twins {
		if t == nil {
			continue
		}
		resp.Twins, resp.Keys = append(resp.Twins, t), append(resp.Keys, got.Keys[i].Append(nil))
		if len(resp.GetTwins()) == answerTwins {
			if err := stream.Send(resp); err != nil {
				return err
			}
			resp = &doppelv1.SelectTwinsResponse{}
		}
	}
	resp.Done, resp.Count, resp.More = true, got.Count, got.More
	return stream.Send(resp)
}

func (s *Server) query(req *doppelv1.SelectTwinsRequest) (*host.Query, error) {
	for _, p := range req.GetPartitions() {
		if err := s.check(p); err != nil {
			return nil, err
		}
	}
	if req.GetLimit() < 1 || req.GetLimit() > maxLimit {
		return nil, status.Errorf(codes.InvalidArgument, "limit: %d, want 1 to %d", req.GetLimit(), maxLimit)
	}
	q := &host.Query{Limit: int(req.GetLimit())}
	var err error
	if q.Filter, err = compileFilter(req.GetFilter()); err != nil {
		return nil, err
	}
	if q.Order, err = selection.ParseOrder(req.GetOrderBy(), &doppelv1.Twin{}); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if len(req.GetAfter()) > 0 {
		key, ok := q.Order.ReadKey(req.GetAfter())
		if !ok {
			return nil, status.Error(codes.InvalidArgument, "after: no place in this order")
		}
		q.After = &key
	}
	return q, nil
}

// twins reads twins of the partitions given. What is not served any more has none: whoever asked meets
// that in what it asks next.
func (s *Server) twins(ctx context.Context, ps []int32, ids []string) ([]*doppelv1.Twin, error) {
	var mu sync.Mutex
	var all []*doppelv1.Twin
	m, err := each(ctx, ps, func(ctx context.Context, p int32) error {
		of := ids[:0:0]
		for _, id := range ids {
			if placement.Partition([]byte(id), int32(len(s.host.Partitions()))) == p {
				of = append(of, id)
			}
		}
		if len(of) == 0 {
			return nil
		}
		twins, err := s.host.Twins(ctx, p, of)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, twins...)
		return err
	})
	if err == nil && len(m.partitions) > 0 {
		err = host.ErrUnavailable
	}
	return all, err
}

// SummarizeTwins implements the service.
func (s *Server) SummarizeTwins(req *doppelv1.SummarizeTwinsRequest, stream grpc.ServerStreamingServer[doppelv1.SummarizeTwinsResponse]) error {
	for _, p := range req.GetPartitions() {
		if err := s.check(p); err != nil {
			return err
		}
	}
	f, err := compileFilter(req.GetAggregate().GetFilter())
	if err != nil {
		return err
	}
	by, err := selection.ParseGrouping(req.GetAggregate())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	sum := &sums{groups: selection.NewGroups(by)}
	var m missed
	err = beating(func() error { return stream.Send(&doppelv1.SummarizeTwinsResponse{}) }, func() (err error) {
		m, err = each(stream.Context(), req.GetPartitions(), func(ctx context.Context, p int32) error { return sum.count(ctx, s.host, p, f, by) })
		return err
	})
	if err != nil {
		return toStatus(err)
	}
	groups := sum.groups.Protos()
	for len(groups) > answerGroups {
		if err := stream.Send(&doppelv1.SummarizeTwinsResponse{Groups: groups[:answerGroups]}); err != nil {
			return err
		}
		groups = groups[answerGroups:]
	}
	return stream.Send(&doppelv1.SummarizeTwinsResponse{Groups: groups, NotServed: m.partitions, Done: true})
}
