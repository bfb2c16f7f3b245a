package remote

import (
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// maxAddress bounds what a node may call itself: a DNS name and a port.
const maxAddress = 253 + len(":65535")

// exchangeDesc is NodeService.Exchange as the client sees it.
var exchangeDesc = grpc.StreamDesc{StreamName: "Exchange", ClientStreams: true, ServerStreams: true}

// Register adds NodeService to a server, which must have been made with ServerOptions. Stop ends the
// streams, so call it before the server's GracefulStop.
func (r *Remote) Register(s grpc.ServiceRegistrar) {
	exchange := exchangeDesc
	exchange.Handler = func(_ any, stream grpc.ServerStream) error { return r.serve(stream) }
	desc := doppelv1.NodeService_ServiceDesc
	desc.HandlerType = nil // frames come in, not what the generated interface takes
	desc.Streams = []grpc.StreamDesc{exchange}
	s.RegisterService(&desc, nil)
}

// serve reads the stream of another node until either ends it.
func (r *Remote) serve(stream grpc.ServerStream) error {
	r.mu.RLock()
	if !r.started || r.stopping.Err() != nil {
		r.mu.RUnlock()
		return status.Error(codes.Unavailable, "node is stopping")
	}
	in, done := r.newInbound(), make(chan error, 1)
	r.wg.Go(func() { done <- in.read(stream) })
	r.mu.RUnlock()
	select { // returning ends the stream, and with it the reading
	case err := <-done:
		return err
	case <-r.stopping.Done():
		return status.Error(codes.Unavailable, "node is stopping")
	case <-in.replaced:
		return status.Error(codes.Aborted, "another stream has come from this address")
	}
}

func (in *inbound) read(stream grpc.ServerStream) error {
	defer in.r.inbounds.leave(in)
	for {
		var f frame
		if err := stream.RecvMsg(&f); err != nil {
			return endOf(err)
		}
		select {
		case <-in.replaced: // what was received before may still come
			f.buf.Free()
			return nil
		default:
		}
		res, err := in.request(f.buf.ReadOnlyData())
		f.buf.Free()
		if err != nil {
			return err
		}
		if res != nil {
			if err := stream.SendMsg(res); err != nil {
				return err
			}
		}
	}
}

// request takes an ExchangeRequest and returns what to answer: refusals, or to one without messages
// that it came.
func (in *inbound) request(b []byte) (*doppelv1.ExchangeResponse, error) {
	if in.from == "" {
		// Only the first says who it is from, and it must.
		from, _, err := parseRequest(b, func(*received) {})
		if err != nil || from == "" || len(from) > maxAddress {
			return nil, status.Error(codes.InvalidArgument, "first request does not say who it is from")
		}
		in.from = from
		in.r.inbounds.enter(in)
		in.r.alive(from)
	}
	in.r.heard.of(in.from).Store(time.Now().UnixNano())
	n, err := in.take(b)
	switch {
	case err != nil:
		return nil, status.Errorf(codes.InvalidArgument, "request is malformed: %v", err)
	case n > 0 && len(in.refusals) == 0:
		return nil, nil
	}
	return &doppelv1.ExchangeResponse{Refusals: in.refusals}, nil
}

// alive says that a node has just connected: so can we.
func (r *Remote) alive(address string) {
	r.mu.RLock()
	p := r.peers[address]
	r.mu.RUnlock()
	// Only while it waits: gRPC's reset reads what the beginning of a connection writes.
	if p != nil && p.conn.GetState() == connectivity.TransientFailure {
		p.conn.ResetConnectBackoff()
	}
}

// inbounds are the streams of others, one of each node.
type inbounds struct {
	mu     sync.Mutex
	byFrom map[string]*inbound
}

// enter makes in the stream of its node and waits for what an older one is about to deliver: it may
// be broken without this node having noticed.
func (s *inbounds) enter(in *inbound) {
	s.mu.Lock()
	older := s.byFrom[in.from]
	if s.byFrom == nil {
		s.byFrom = map[string]*inbound{}
	}
	s.byFrom[in.from] = in
	s.mu.Unlock()
	if older != nil {
		close(older.replaced)
		<-older.ended
	}
}

func (s *inbounds) leave(in *inbound) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byFrom[in.from] == in {
		delete(s.byFrom, in.from)
	}
	close(in.ended)
}
