package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// errStalled ends a stream whose peer has answered nothing for Config.StallAfter.
var errStalled = errors.New("peer stands still")

// converse runs one stream until it breaks or the life ends. It is up once the peer has answered.
func (p *peer) converse() (err error) {
	ctx, cancel := context.WithCancelCause(p.life)
	defer cancel(nil)
	// A peer that answers nothing in time loses its connection, on which calls may hang, too.
	watch := time.AfterFunc(p.r.cfg.StallAfter, func() {
		cancel(errStalled)
		p.cut()
	})
	defer watch.Stop()

	after := down
	defer func() {
		stalled := errors.Is(context.Cause(ctx), errStalled)
		if stalled {
			p.r.stats.Stalls.Add(1)
			err = errStalled
		}
		if p.is(up) {
			p.r.stats.Connected.Add(-1)
			if !stalled {
				after = connecting
			}
		}
		p.become(after)
	}()

	stream, err := p.conn.NewStream(ctx, &exchangeDesc, doppelv1.NodeService_Exchange_FullMethodName, grpc.ForceCodecV2(newCodec()))
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	answered, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- p.listen(stream, watch, answered) }()
	err = p.pump(stream, answered, ended)
	cancel(nil) // nothing, if the stream has a cause already
	if err == nil {
		return <-ended
	}
	return err
}

// listen takes what the peer answers.
func (p *peer) listen(stream grpc.ClientStream, watch *time.Timer, answered chan<- struct{}) error {
	for first := true; ; first = false {
		var res doppelv1.ExchangeResponse
		if err := stream.RecvMsg(&res); err != nil {
			return err
		}
		p.heard.Store(time.Now().UnixNano())
		watch.Reset(p.r.cfg.StallAfter)
		if first {
			close(answered)
		}
		p.refused(res.GetRefusals())
	}
}

func (p *peer) refused(refusals []*doppelv1.Refusal) {
	for _, ref := range refusals {
		p.r.stats.Refused.Add(1)
		p.r.log.Debug("peer refused a message", "peer", p.address, "reason", ref.GetReason(), "detail", ref.GetDetail())
		p.r.cfg.OnRefused(p.address, ref)
	}
}

// pump sends: first who we are, then what is queued, and pings. It returns the error of ended, or
// nil, if that is yet to come.
func (p *peer) pump(stream grpc.ClientStream, answered <-chan struct{}, ended <-chan error) error {
	hello := protowire.AppendTag(nil, requestFrom, protowire.BytesType)
	hello = protowire.AppendString(hello, p.r.cfg.Address)
	if stream.SendMsg(&frame{mem.SliceBuffer(hello)}) != nil {
		return nil
	}
	select {
	case <-answered:
	case err := <-ended:
		return err
	}
	p.r.stats.Connects.Add(1)
	p.r.stats.Connected.Add(1)
	p.become(up)
	p.r.log.Info("connected to peer", "peer", p.address)

	ping := time.NewTicker(p.r.cfg.StallAfter / 4)
	defer ping.Stop()
	ask := &frame{mem.SliceBuffer(nil)}
	flushed := false
	for {
		select { // before what is queued, however much that is
		case <-ping.C:
			if stream.SendMsg(ask) != nil {
				return nil
			}
		default:
		}
		if c, ok := p.take(); ok {
			if !p.ship(stream, c) {
				return nil
			}
			continue
		}
		if flushed {
			// All is sent. That the peer ends the stream says that it has taken all.
			if stream.CloseSend() != nil {
				return nil
			}
			return <-ended
		}
		select {
		case <-p.wake:
		case <-ping.C:
			if stream.SendMsg(ask) != nil {
				return nil
			}
		case err := <-ended:
			return err
		case <-p.r.stopping.Done():
			flushed = true // once what was told before is taken
		}
	}
}

// ship sends one batch; false: the stream is broken.
func (p *peer) ship(stream grpc.ClientStream, c chunk) bool {
	n := len(*c.bytes)
	defer p.done(n)
	if err := stream.SendMsg(&frame{mem.NewBuffer(c.bytes, &p.r.chunks)}); err != nil {
		p.r.stats.Dropped.Add(uint64(c.messages))
		return false
	}
	p.r.stats.Batches.Add(1)
	p.r.stats.Sent.Add(uint64(c.messages))
	p.r.stats.SentBytes.Add(uint64(n))
	return true
}
