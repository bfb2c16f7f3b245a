package auth

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
)

const (
	// failuresPerSecond is how many refused credentials an address may show; each costs us a hash or a
	// signature.
	failuresPerSecond = 20
	failuresBurst     = 100
	// manyClients is when those who have not called for idleAfter are forgotten.
	manyClients = 10_000
	idleAfter   = 2 * time.Minute
)

// limits counts what each client does.
type limits struct {
	perSecond rate.Limit
	burst     int
	watches   int

	mu      sync.Mutex
	clients map[string]*client
}

type client struct {
	calls    *rate.Limiter
	failures *rate.Limiter
	watches  int
	last     time.Time
}

// newLimits; 0 of either: no limit.
func newLimits(perSecond float64, watches int) *limits {
	l := &limits{perSecond: rate.Limit(perSecond), watches: watches, clients: make(map[string]*client)}
	if perSecond <= 0 {
		l.perSecond = rate.Inf
	}
	if watches <= 0 {
		l.watches = math.MaxInt
	}
	l.burst = int(min(max(2*perSecond, 10), math.MaxInt32))
	return l
}

// of is the client of a name. Under mu.
func (l *limits) of(name string, now time.Time) *client {
	c := l.clients[name]
	if c == nil {
		if len(l.clients) >= manyClients {
			l.forget(now)
		}
		c = &client{calls: rate.NewLimiter(l.perSecond, l.burst), failures: rate.NewLimiter(failuresPerSecond, failuresBurst)}
		l.clients[name] = c
	}
	c.last = now
	return c
}

func (l *limits) forget(now time.Time) {
	for name, c := range l.clients {
		if c.watches == 0 && now.Sub(c.last) > idleAfter {
			delete(l.clients, name)
		}
	}
}

// call takes one call of a client.
func (l *limits) call(name string, now time.Time) error {
	if l.perSecond == rate.Inf {
		return nil
	}
	l.mu.Lock()
	c := l.of(name, now)
	l.mu.Unlock()
	r := c.calls.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	r.CancelAt(now)
	return refuseFor(wait, codes.ResourceExhausted, ReasonRate, "more than %v calls a second", float64(l.perSecond))
}

// watch takes one watch of a client; done gives it back.
func (l *limits) watch(name string, now time.Time) (done func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.of(name, now)
	if c.watches >= l.watches {
		return nil, refuseFor(time.Second, codes.ResourceExhausted, ReasonWatches, "more than %d watches at a time", l.watches)
	}
	c.watches++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		c.watches--
	}), nil
}

// strange says whether an address has shown too many refused credentials.
func (l *limits) strange(name string, now time.Time) error {
	l.mu.Lock()
	c := l.clients[name]
	l.mu.Unlock()
	if c == nil || c.failures.TokensAt(now) >= 1 {
		return nil
	}
	return refuseFor(time.Second, codes.ResourceExhausted, ReasonRate, "too many refused credentials from this address")
}

func (l *limits) failed(name string, now time.Time) {
	l.mu.Lock()
	c := l.of(name, now)
	l.mu.Unlock()
	c.failures.AllowN(now, 1)
}
