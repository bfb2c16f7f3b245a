package mqtt

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/log"
)

var errSilent = errors.New("no answer from the broker")

// silence is how long a broker may leave a PINGREQ unanswered and send nothing else, if 1.5 times the
// keep alive is not shorter: while a link is dead without our knowing, what the broker has for us waits.
const silence = 5 * time.Second

// pinger keeps a connection alive, puts the marks of its ledger, and is the only one to write PINGREQs.
// Unlike paho's it goes on while the reader waits for the inlet and does not take the PINGRESP nobody
// reads for a dead link.
type pinger struct{}

// Run implements paho.Pinger.
func (pinger) Run(ctx context.Context, nc net.Conn, keepAlive uint16) error {
	c, ok := nc.(*conn)
	if !ok {
		return errors.New("pinger: foreign connection")
	}
	every := time.Duration(keepAlive) * time.Second / 2
	if keepAlive == 0 { // the broker wants none
		every = time.Hour
	}
	p := pinging{conn: c, ledger: c.in.ledger, every: every, silence: min(silence, 3*every)}
	return p.run(ctx)
}

// pinging is the state of one connection's pings.
type pinging struct {
	conn   *conn
	ledger *ledger
	every  time.Duration // between PINGREQs at most
	// silence that is taken for a dead link when it follows a PINGREQ.
	silence time.Duration
	last    time.Time // PINGREQ
	looked  time.Time
}

func (p *pinging) run(ctx context.Context) error {
	beat := p.silence / 5
	tick := time.NewTicker(beat)
	defer tick.Stop()
	failed := make(chan error, 1)
	writing := make(chan struct{}, 1) // a write may block: never more than one
	p.last, p.looked = time.Now(), time.Now()
	for {
		quiet, err := p.look(time.Now(), 2*beat)
		if err != nil {
			return err
		}
		select {
		case writing <- struct{}{}:
			due := time.Since(p.last) >= p.every || quiet >= p.silence/2 && !p.ledger.unanswered(p.conn)
			write, inForce := p.ledger.ping(p.conn, due)
			if !inForce {
				return nil
			}
			if !write {
				<-writing
				break
			}
			p.last = time.Now()
			go func() {
				if _, err := packets.NewControlPacket(packets.PINGREQ).WriteTo(p.conn); err != nil {
					failed <- err
				}
				<-writing
				p.ledger.pingWritten()
			}()
		default:
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-tick.C:
		case <-p.ledger.wake:
		}
	}
}

// look says for how long nothing has come, and with an error that the link is dead. A reader that waits
// for the inlet hears nothing, nor does a process that was stopped.
func (p *pinging) look(now time.Time, late time.Duration) (quiet time.Duration, err error) {
	c := p.conn
	if c.busy.Load() || c.paused.Load() || now.Sub(p.looked) > late {
		c.heard.Store(now.UnixNano())
	}
	p.looked = now
	quiet = now.Sub(time.Unix(0, c.heard.Load()))
	if quiet > p.silence && p.ledger.unanswered(c) {
		return quiet, errSilent
	}
	return quiet, nil
}

// PacketSent implements paho.Pinger.
func (pinger) PacketSent() {}

// PacketReceived implements paho.Pinger; the connection hears for itself.
func (pinger) PacketReceived() {}

// PingResp implements paho.Pinger; so it does.
func (pinger) PingResp() {}

// SetDebug implements paho.Pinger.
func (pinger) SetDebug(log.Logger) {}
