package node

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/query"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// fleet answers how this node is doing; query.Fleet adds the nodes up. It implements query.Part.
type fleet struct {
	host    *host.Host
	id      string
	address string
	started time.Time
	lag     func() map[int32]int64 // records not yet in QuestDB, by partition; nil: no QuestDB
	rows    auditedRows            // nil: no QuestDB
	letters query.Letters
	ingest  func(ctx context.Context) ([]int64, error) // ends of doppel.ingest, by partition
	// describe adds what the node knows of itself as a member of a cluster; nil: nothing.
	describe func(*doppelv1.Node)
	// drain takes partitions and MQTT share away from the node, or gives it its share again; nil: it
	// is alone.
	drain func(ctx context.Context, undo bool) error

	mu      sync.Mutex
	rate    float64 // samples per second, smoothed
	counted uint64
	at      time.Time

	asking sync.Mutex
	asked  time.Time
	ends   []int64
}

// Status implements query.Part.
func (f *fleet) Status(ctx context.Context) (*doppelv1.Status, error) {
	s := &doppelv1.Status{SamplesPerSecond: f.samplesPerSecond(), Nodes: []*doppelv1.Node{f.node()}}
	var lag map[int32]int64
	if f.lag != nil {
		lag = f.lag()
	}
	ends := f.ingestEnds(ctx)
	for _, v := range f.host.Partitions() {
		p := &doppelv1.Partition{Id: v.ID, State: string(v.State), Twins: uint64(v.Twins)}
		if v.State != host.Idle {
			p.Owner, p.Epoch, p.QuestdbLag = f.id, uint64(v.Epoch), lag[v.ID]
		}
		if answers(v) && int(v.ID) < len(ends) {
			p.IngestLag = max(0, ends[v.ID]-v.Ingest)
		}
		s.Partitions = append(s.Partitions, p)
		s.Twins += uint64(v.Twins)
		s.Online += uint64(v.Online)
		s.OpenAlerts += uint64(v.OpenAlerts)
	}
	return s, nil
}

func (f *fleet) node() *doppelv1.Node {
	serving, owned := f.host.Restored()
	n := &doppelv1.Node{
		Id: f.id, Address: f.address, State: "serving", Version: Version(), Partitions: uint32(serving), StartTime: timestamppb.New(f.started),
	}
	if serving < owned {
		n.State = "restoring"
	}
	if f.describe != nil {
		f.describe(n)
	}
	return n
}

// endsFresh is how old the ends of doppel.ingest may be, endsPatience how long the log may take to
// tell them: a status without them is better than none.
const (
	endsFresh    = time.Second
	endsPatience = time.Second
)

// ingestEnds are the ends of doppel.ingest, nil if the log does not tell them in time.
func (f *fleet) ingestEnds(ctx context.Context) []int64 {
	f.asking.Lock()
	defer f.asking.Unlock()
	if f.ingest == nil || time.Since(f.asked) < endsFresh {
		return f.ends
	}
	ctx, cancel := context.WithTimeout(ctx, endsPatience)
	defer cancel()
	f.ends, _ = f.ingest(ctx)
	f.asked = time.Now()
	return f.ends
}

// errAlone answers who would drain the only node.
var errAlone = status.Error(codes.FailedPrecondition, "the node is alone: nobody can take over what it has")

// Drain implements query.Part.
func (f *fleet) Drain(ctx context.Context, undo bool) (*doppelv1.Node, error) {
	if f.drain == nil {
		return nil, errAlone
	}
	if err := f.drain(ctx, undo); err != nil {
		return nil, err
	}
	return f.node(), nil
}

// own are the partitions that this node can be asked about.
func (f *fleet) own() []host.View {
	return slices.DeleteFunc(f.host.Partitions(), func(v host.View) bool { return !answers(v) })
}

func answers(v host.View) bool { return v.State == host.Serving || v.State == host.Leaving }

// run keeps the rate of samples current.
func (f *fleet) run(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			f.measure(now)
		}
	}
}

func (f *fleet) measure(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.host.Stats().Received.Load()
	if !f.at.IsZero() {
		seconds := now.Sub(f.at).Seconds()
		keep := math.Exp(-seconds / 5)
		f.rate = f.rate*keep + float64(n-f.counted)/seconds*(1-keep)
	}
	f.counted, f.at = n, now
}

func (f *fleet) samplesPerSecond() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rate
}
