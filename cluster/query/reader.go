// Package query answers questions about twins and alerts wherever they are: the partitions of this
// node are asked directly, those of others through the QueryService that nodes serve to each other.
//
// It does not decide who owns a partition (Config.Route says so, and may be wrong for a moment), holds
// no state of twins and keeps nothing between two questions but connections. A node that does not
// answer costs a question a bounded time, and only if it is asked about partitions of that node.
//
// Everything exported is safe for concurrent use.
package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Route says where a partition is served, as this node knows it; it may be wrong for a moment.
type Route struct {
	Local bool
	// Address of the node that serves it; empty and not local: nobody is known to.
	Address string
}

// Config of a Reader and of what else asks other nodes. Host and Partitions must be set; a node
// without others needs nothing else.
type Config struct {
	Node       string // id of this node
	Host       Host
	Partitions int32
	// Commands of devices of this node; nil: Reader.Invoke must not be called.
	Commands Commands
	// Route says who serves a partition. It is asked for every question. Default: this node.
	Route func(p int32) Route
	// Conn is the connection to a node, shared with others. It must not block.
	Conn func(address string) (*grpc.ClientConn, error)
	// Members are the nodes there are, this one among them, and those that died and were not adopted
	// yet. Default: none but this one.
	Members func() []*doppelv1.NodeRecord
	// Patience is how long a node may be silent before it counts as not answering. Default 2 s. Reads
	// of the log may take longer and are bounded by their callers.
	Patience time.Duration
	Logger   *slog.Logger // default: none
}

func (c *Config) complete() {
	if c.Route == nil {
		c.Route = func(int32) Route { return Route{Local: true} }
	}
	if c.Conn == nil {
		c.Conn = func(address string) (*grpc.ClientConn, error) { return nil, fmt.Errorf("no way to node %s", address) }
	}
	if c.Members == nil {
		c.Members = func() []*doppelv1.NodeRecord { return nil }
	}
	if c.Patience <= 0 {
		c.Patience = 2 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Reader reads twins and alerts; what it returns is released state.
type Reader struct {
	cfg Config

	mu   sync.Mutex
	seen map[string]counts // by address: what other nodes said last
}

// counts are cheap figures of a node.
type counts struct{ twins, online, openAlerts uint64 }

// New returns a Reader. It starts nothing.
func New(cfg Config) *Reader {
	cfg.complete()
	return &Reader{cfg: cfg, seen: make(map[string]counts)}
}

// missed are partitions that a question did not reach, and why.
type missed struct {
	partitions []int32
	why        string
	late       []int32 // with an error: those that were asked and had not answered
}

// ask puts a question about partitions to those who serve them, all at the same time. fn puts it to
// one of them and says which partitions it did not reach; these are tried once more if their route
// has changed since, and are the host.ErrUnavailable that ask returns otherwise, after it has asked
// about the others. fn is called from several goroutines.
func (r *Reader) ask(ctx context.Context, ps []int32, fn func(ctx context.Context, to Route, ps []int32) (missed, error)) error {
	tried := make(map[int32]Route, len(ps))
	var lost missed
	for round := 0; len(ps) > 0; round++ {
		groups := make(map[Route][]int32)
		for _, p := range ps {
			to := r.cfg.Route(p)
			if before, again := tried[p]; round == 2 || again && before == to || !to.Local && to.Address == "" {
				lost.partitions = append(lost.partitions, p)
				continue
			}
			tried[p] = to
			groups[to] = append(groups[to], p)
		}
		m, err := r.askGroups(ctx, groups, fn)
		if err != nil {
			return overdue(m.late, err)
		}
		ps = m.partitions
		if m.why != "" {
			lost.why = m.why
		}
	}
	if len(lost.partitions) > 0 {
		return unavailable(lost.partitions, lost.why)
	}
	return nil
}

// askGroups puts a question to each of those who serve partitions, and returns what was not reached.
func (r *Reader) askGroups(ctx context.Context, groups map[Route][]int32, fn func(context.Context, Route, []int32) (missed, error)) (missed, error) {
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		sum missed
		bad error
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for to, ps := range groups {
		one := func() {
			m, err := fn(ctx, to, ps)
			mu.Lock()
			defer mu.Unlock()
			sum.partitions = append(sum.partitions, m.partitions...)
			sum.late = append(sum.late, m.late...)
			if m.why != "" {
				sum.why = m.why
			}
			if err != nil && bad == nil {
				bad = err
				cancel() // the others' answers are of no use
			}
		}
		if len(groups) == 1 {
			one()
			break
		}
		wg.Go(one)
	}
	wg.Wait()
	return sum, bad
}

// client is a connection to the node of an address.
func (r *Reader) client(address string) (doppelv1.QueryServiceClient, error) {
	conn, err := r.cfg.Conn(address)
	if err != nil {
		return nil, err
	}
	return doppelv1.NewQueryServiceClient(conn), nil
}

// remote puts a question to another node. Without an answer all of ps are missed.
func (r *Reader) remote(ctx context.Context, address string, ps []int32, fn func(context.Context, doppelv1.QueryServiceClient) (missed, error)) (missed, error) {
	c, err := r.client(address)
	if err != nil {
		return missed{partitions: ps, why: err.Error()}, nil //nolint:nilerr // what is not reached is told as that
	}
	m, err := fn(ctx, c)
	if err == nil {
		return m, nil
	}
	if late := over(ctx); late != nil {
		return missed{late: ps}, late
	}
	err, answered := fromStatus(err)
	switch {
	case notServed(err):
		return missed{partitions: ps}, nil
	case answered:
		return missed{}, err
	default:
		r.cfg.Logger.Debug("node does not answer", "address", address, "err", err)
		return missed{partitions: ps, why: "node " + address + " does not answer"}, nil
	}
}

// soon is remote for a question that is answered at once, or not at all.
func (r *Reader) soon(ctx context.Context, address string, ps []int32, fn func(context.Context, doppelv1.QueryServiceClient) (missed, error)) (missed, error) {
	return r.remote(ctx, address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (missed, error) {
		bound, cancel := context.WithTimeout(ctx, r.cfg.Patience)
		defer cancel()
		return fn(bound, c)
	})
}

// over is why nobody waits for an answer any more, nil if somebody does. A stream ends at its deadline, and
// may so a moment before its context.
func over(ctx context.Context) error {
	if at, bound := ctx.Deadline(); bound && ctx.Err() == nil && !time.Now().Before(at) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// notServed says whether an error is that of a partition which is not served where it was asked.
func notServed(err error) bool {
	return errors.Is(err, host.ErrUnavailable) || errors.Is(err, host.ErrClosed)
}

// all are all partitions.
func (r *Reader) all() []int32 {
	ps := make([]int32, r.cfg.Partitions)
	for i := range ps {
		ps[i] = int32(i)
	}
	return ps
}

// Count is how many twins, online twins and open alerts there are: of this node now, of others as
// they last said in a Status.
func (r *Reader) Count() (twins, online, openAlerts uint64) {
	for _, v := range r.cfg.Host.Partitions() {
		twins += uint64(v.Twins)
		online += uint64(v.Online)
		openAlerts += uint64(v.OpenAlerts)
	}
	members := r.cfg.Members()
	r.mu.Lock()
	defer r.mu.Unlock()
	for address, n := range r.seen {
		if !slices.ContainsFunc(members, func(m *doppelv1.NodeRecord) bool { return m.GetAddress() == address }) {
			delete(r.seen, address)
			continue
		}
		twins, online, openAlerts = twins+n.twins, online+n.online, openAlerts+n.openAlerts
	}
	return twins, online, openAlerts
}
