package node

import (
	"context"
	"time"

	"github.com/doppel-iot/doppel/gateway/mqtt"
)

const (
	// emptyWithin bounds how long a node that stops waits for others to take over what it has. What they
	// have not taken then is let go of in order anyway.
	emptyWithin = 10 * time.Second
	// unshareWithin bounds how long it waits for the end of its MQTT session. One that has not ended stays
	// with the broker until it is adopted.
	unshareWithin = 5 * time.Second
)

// leave gives partitions and MQTT share to the other nodes, while this one still serves. Without others,
// or where they are leaving as well or the group cannot tell them, the session stays with the broker and
// keeps what comes until there is a node again.
func (a *assembly) leave(ctx context.Context) {
	c := a.cluster
	if c == nil || !c.heirs() {
		return
	}
	c.group.SetCapacity(0)
	wait, cancel := context.WithTimeout(ctx, emptyWithin)
	defer cancel()
	if !a.emptied(wait) {
		if c.heirs() {
			a.log.WarnContext(ctx, "partitions not taken over in time")
		}
		return
	}
	wait, cancel = context.WithTimeout(ctx, unshareWithin)
	defer cancel()
	if err := a.unshare(wait); err != nil {
		a.log.WarnContext(ctx, "the MQTT session is left to be adopted", "err", err)
		return
	}
	a.left = true
}

// heirs says whether others can be told to take over.
func (c *cluster) heirs() bool { return c.fresh() && c.others() }

// unshare ends this node's share of what devices publish.
func (a *assembly) unshare(ctx context.Context) error {
	if client, ok := a.door.(*mqtt.Client); ok {
		return client.Leave(ctx)
	}
	return nil
}

// emptied waits until this node owns nothing, for as long as somebody is there to take it.
func (a *assembly) emptied(ctx context.Context) bool {
	const pace = 20 * time.Millisecond
	for {
		if _, owned := a.host.Restored(); owned == 0 {
			return true
		}
		if !a.cluster.heirs() {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pace):
		}
	}
}

// withdraw removes the record of a node that has left.
func (a *assembly) withdraw() error {
	if a.cluster == nil || !a.left {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), logPatience)
	defer cancel()
	return a.cluster.registry.Withdraw(ctx)
}

// drain implements DrainNode: partitions and MQTT share go to the other nodes, or come back. It lasts until
// it is undone or the node stops. It does not wait for the end.
func (c *cluster) drain(_ context.Context, undo bool) error {
	if !undo && !c.others() {
		return errAlone
	}
	c.draining.Store(!undo)
	if undo {
		c.group.SetCapacity(c.a.cfg.Capacity)
	} else {
		c.group.SetCapacity(0)
	}
	return nil
}

// share keeps this node's share of what devices publish in line with whether it is being drained.
func (c *cluster) share(ctx context.Context) error {
	const pace = 200 * time.Millisecond
	client, ok := c.a.door.(*mqtt.Client)
	if !ok { // devices connect to this node itself
		c.unshared.Store(true)
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(pace)
	defer t.Stop()
	unsharing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		_, owned := c.a.host.Restored()
		switch draining := c.draining.Load(); {
		case draining && !c.unshared.Load() && owned == 0:
			unsharing = true // also after a failure nothing is subscribed any more
			bound, cancel := context.WithTimeout(ctx, unshareWithin)
			err := client.Leave(bound)
			cancel()
			c.unshared.Store(err == nil)
			if err != nil && ctx.Err() == nil {
				c.a.log.WarnContext(ctx, "MQTT share not given up, trying again", "err", err)
			}
		case !draining && unsharing:
			client.Return()
			unsharing = false
			c.unshared.Store(false)
		}
	}
}
