package mqtt

import "sync/atomic"

// Stats are the counters of a door since it was made, for /metrics. All but the gauges only grow.
type Stats struct {
	Telemetry atomic.Uint64 // messages received, also again, by kind
	Status    atomic.Uint64
	Reported  atomic.Uint64

	Acked       atomic.Uint64 // PUBACK and PUBREC written
	AckWrites   atomic.Uint64 // writes they took
	Negative    atomic.Uint64 // acknowledged with an error, or cut off for want of one (embedded broker)
	Redelivered atomic.Uint64 // delivered to the inlet again after another verdict than Released
	Stale       atomic.Uint64 // verdicts for a connection that is gone: the broker delivers again
	Refused     atomic.Uint64 // dead letters the door made
	Ignored     atomic.Uint64 // retained telemetry and foreign topics, acknowledged and dropped
	Forwarded   atomic.Uint64 // device messages passed on to ordinary subscribers (embedded broker)
	Connects    atomic.Uint64 // connections made: reconnects are all but the first
	Strangers   atomic.Uint64 // connections refused for want of credentials (embedded broker)
	Denied      atomic.Uint64 // publications and subscriptions to what is not the client's own (embedded broker)
	Rejections  atomic.Uint64 // told to devices
	Unsaid      atomic.Uint64 // rejections not told because of the rate limit

	Unacked   atomic.Int64 // gauge: messages held, received and not yet acknowledged
	Connected atomic.Int64 // gauge: broker connections up, or devices connected
}

func (s *Stats) received() uint64 {
	return s.Telemetry.Load() + s.Status.Load() + s.Reported.Load()
}
