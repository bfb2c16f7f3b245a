package remote

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats count since the Remote was made. All but the gauges only grow.
type Stats struct {
	Sent          atomic.Uint64 // messages handed to a stream
	SentBytes     atomic.Uint64 // encoded
	Batches       atomic.Uint64 // requests they went in
	Received      atomic.Uint64 // messages that came, with those refused
	ReceivedBytes atomic.Uint64

	Rejected atomic.Uint64 // not taken: Tell returned an error
	Dropped  atomic.Uint64 // taken and thrown away when the peer's stream broke
	Refused  atomic.Uint64 // sent, and not delivered by the other node
	Refusals atomic.Uint64 // received, and not delivered by this one

	Connects atomic.Uint64 // streams made: reconnects are all but the first of each peer
	Stalls   atomic.Uint64 // connections given up because the peer stood still

	Queued    atomic.Int64 // gauge: bytes that wait for peers
	Connected atomic.Int64 // gauge: peers with a stream
}

// clocks remember when something last came from each address.
type clocks struct{ m sync.Map } // address -> *atomic.Int64, unix nanoseconds

func (c *clocks) of(address string) *atomic.Int64 {
	if v, ok := c.m.Load(address); ok {
		return v.(*atomic.Int64) //nolint:errcheck // nothing else is stored
	}
	v, _ := c.m.LoadOrStore(address, new(atomic.Int64))
	return v.(*atomic.Int64) //nolint:errcheck // nothing else is stored
}

func (c *clocks) at(address string) time.Time {
	v, ok := c.m.Load(address)
	if !ok {
		return time.Time{}
	}
	ns := v.(*atomic.Int64).Load() //nolint:errcheck // nothing else is stored
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

func (c *clocks) forget(address string) { c.m.Delete(address) }
