package remote

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/connectivity"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Between two attempts to make a connection or a stream: as long as the first, growing to the second.
const (
	backoffMin = 50 * time.Millisecond
	backoffMax = 2 * time.Second
)

// run keeps a stream to the peer and sends what is told to it, until its life ends.
func (p *peer) run() {
	defer func() {
		p.kill()
		p.become(down)
		_ = p.conn.Close() // it only says that it was closed before
	}()
	if p.address == p.r.cfg.Address {
		p.loop()
		return
	}
	for failures := 0; ; failures++ {
		if !p.connect() {
			return
		}
		began := time.Now()
		err := p.converse()
		if p.life.Err() != nil || p.r.stopping.Err() != nil {
			return
		}
		p.r.log.Info("stream to peer ended", "peer", p.address, "err", err)
		if time.Since(began) > backoffMax {
			failures = 0
		}
		if !p.pause(failures) {
			return
		}
	}
}

// connect returns true once there is a connection; a first attempt that fails makes the peer down.
// gRPC makes the attempts.
func (p *peer) connect() bool {
	ctx, cancel := p.untilStopping()
	defer cancel()
	for {
		s := p.conn.GetState()
		switch s {
		case connectivity.Ready:
			return true
		case connectivity.Idle:
			p.conn.Connect()
		case connectivity.TransientFailure:
			if p.become(down) != down {
				p.r.log.Warn("peer cannot be reached", "peer", p.address, "err", p.reason(ctx))
			}
		case connectivity.Connecting:
		case connectivity.Shutdown:
			return false
		}
		if !p.conn.WaitForStateChange(ctx, s) {
			return false
		}
	}
}

// untilStopping is the life of the peer up to where nothing more is to be done than what is queued.
func (p *peer) untilStopping() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(p.life)
	release := context.AfterFunc(p.r.stopping, cancel)
	return ctx, func() { release(); cancel() }
}

// reason asks gRPC why a connection failed: a call that does not wait for one says it.
func (p *peer) reason(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	_, err := p.conn.NewStream(ctx, &exchangeDesc, doppelv1.NodeService_Exchange_FullMethodName)
	return err
}

// pause waits before another attempt; false: there will be none.
func (p *peer) pause(failures int) bool {
	ctx, cancel := p.untilStopping()
	defer cancel()
	d := min(backoffMin<<min(failures, 16), backoffMax)
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
