package query

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	// answerTwins is how many twins, and answerAlerts how many alerts, go into one message: with the
	// largest of either it is far below the limit of a message.
	answerTwins  = 64
	answerAlerts = 512
)

// answer is a stream that several partitions are answered on. Safe for concurrent use.
type answer[M any] struct {
	mu     sync.Mutex
	stream grpc.ServerStreamingServer[M]
}

func (a *answer[M]) send(m *M) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stream.Send(m)
}

// list answers for partitions with what read sends of each; refuse says which ones are not served.
func list[M any](s *Server, ps []int32, stream grpc.ServerStreamingServer[M], refuse func(ps []int32) *M,
	read func(ctx context.Context, p int32, send func(*M) error) error,
) error {
	for _, p := range ps {
		if err := s.check(p); err != nil {
			return err
		}
	}
	a := &answer[M]{stream: stream}
	m, err := each(stream.Context(), ps, func(ctx context.Context, p int32) error { return read(ctx, p, a.send) })
	if err == nil && len(m.partitions) > 0 {
		err = a.send(refuse(m.partitions))
	}
	return toStatus(err)
}

// ReadTwins implements the service.
func (s *Server) ReadTwins(req *doppelv1.ReadTwinsRequest, stream grpc.ServerStreamingServer[doppelv1.ReadTwinsResponse]) error {
	var ps []int32
	devices := make(map[int32][]string)
	for _, part := range req.GetPartitions() {
		ps = append(ps, part.GetPartition())
		devices[part.GetPartition()] = part.GetDevices()
	}
	refuse := func(ps []int32) *doppelv1.ReadTwinsResponse { return &doppelv1.ReadTwinsResponse{NotServed: ps} }
	return list(s, ps, stream, refuse, func(ctx context.Context, p int32, send func(*doppelv1.ReadTwinsResponse) error) error {
		twins, err := s.host.Twins(ctx, p, devices[p])
		for len(twins) > 0 && err == nil {
			n := min(answerTwins, len(twins))
			err = send(&doppelv1.ReadTwinsResponse{Twins: twins[:n]})
			twins = twins[n:]
		}
		return err
	})
}

// ScanTwins implements the service.
func (s *Server) ScanTwins(req *doppelv1.ScanTwinsRequest, stream grpc.ServerStreamingServer[doppelv1.ScanTwinsResponse]) error {
	match, err := compileFilter(req.GetFilter())
	if err != nil {
		return err
	}
	first := &doppelv1.ScanTwinsResponse{}
	var ps []int32
	after := make(map[int32]string)
	for _, part := range req.GetPartitions() {
		p := part.GetPartition()
		if err := s.check(p); err != nil {
			return err
		}
		if !serves(s.host, p) {
			first.NotServed = append(first.NotServed, p)
		}
		ps = append(ps, p)
		after[p] = part.GetAfter()
	}
	if err := stream.Send(first); err != nil || len(first.GetNotServed()) > 0 {
		return err
	}
	refuse := func(ps []int32) *doppelv1.ScanTwinsResponse { return &doppelv1.ScanTwinsResponse{NotServed: ps} }
	return list(s, ps, stream, refuse, func(ctx context.Context, p int32, send func(*doppelv1.ScanTwinsResponse) error) error {
		return walk(ctx, s.host, p, match, after[p], func(of page) error {
			for {
				n := min(answerTwins, len(of.twins))
				if err := send(&doppelv1.ScanTwinsResponse{Partition: p, Twins: of.twins[:n], Done: of.done}); err != nil {
					return err
				}
				if of.twins = of.twins[n:]; len(of.twins) == 0 {
					return nil
				}
			}
		})
	})
}

// ReadAlerts implements the service.
func (s *Server) ReadAlerts(req *doppelv1.ReadAlertsRequest, stream grpc.ServerStreamingServer[doppelv1.ReadAlertsResponse]) error {
	refuse := func(ps []int32) *doppelv1.ReadAlertsResponse { return &doppelv1.ReadAlertsResponse{NotServed: ps} }
	return list(s, req.GetPartitions(), stream, refuse, func(ctx context.Context, p int32, send func(*doppelv1.ReadAlertsResponse) error) error {
		alerts, err := s.host.Alerts(ctx, p)
		for len(alerts) > 0 && err == nil {
			n := min(answerAlerts, len(alerts))
			err = send(&doppelv1.ReadAlertsResponse{Alerts: alerts[:n]})
			alerts = alerts[n:]
		}
		return err
	})
}

// FindAlert implements the service.
func (s *Server) FindAlert(ctx context.Context, req *doppelv1.FindAlertRequest) (*doppelv1.FindAlertResponse, error) {
	for _, p := range req.GetPartitions() {
		if err := s.check(p); err != nil {
			return nil, err
		}
	}
	var mu sync.Mutex
	resp := &doppelv1.FindAlertResponse{}
	m, err := each(ctx, req.GetPartitions(), func(ctx context.Context, p int32) error {
		a, err := s.host.Alert(ctx, p, req.GetId())
		mu.Lock()
		defer mu.Unlock()
		if a != nil {
			resp.Alert = a
		}
		return err
	})
	switch {
	case resp.GetAlert() != nil:
		return resp, nil
	case err != nil:
		return nil, toStatus(err)
	}
	resp.NotServed = m.partitions
	return resp, nil
}
