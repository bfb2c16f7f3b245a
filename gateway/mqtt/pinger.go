package mqtt

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/log"
)

var errSilent = errors.New("no packet from the broker within 1.5 times the keep alive")

// pinger keeps a connection alive. Unlike paho's it goes on while the reader waits for the inlet and
// does not take the PINGRESP nobody reads for a dead link.
type pinger struct{}

// Run implements paho.Pinger.
func (pinger) Run(ctx context.Context, nc net.Conn, keepAlive uint16) error {
	c, ok := nc.(*conn)
	if !ok {
		return errors.New("pinger: foreign connection")
	}
	if keepAlive == 0 {
		return nil
	}
	interval := time.Duration(keepAlive) * time.Second
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	failed := make(chan error, 1)
	writing := make(chan struct{}, 1) // a write may block: never more than one
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-tick.C:
		}
		now := time.Now()
		if c.busy.Load() || c.paused.Load() {
			c.heard.Store(now.UnixNano())
		}
		if now.Sub(time.Unix(0, c.heard.Load())) > interval+interval/2 {
			return errSilent
		}
		select {
		case writing <- struct{}{}:
			go func() {
				if _, err := packets.NewControlPacket(packets.PINGREQ).WriteTo(c); err != nil {
					failed <- err
				}
				<-writing
			}()
		default:
		}
	}
}

// PacketSent implements paho.Pinger.
func (pinger) PacketSent() {}

// PacketReceived implements paho.Pinger; the connection hears for itself.
func (pinger) PacketReceived() {}

// PingResp implements paho.Pinger.
func (pinger) PingResp() {}

// SetDebug implements paho.Pinger.
func (pinger) SetDebug(log.Logger) {}
