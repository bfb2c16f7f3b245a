package node

import (
	"context"
	"math"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// fleet answers how the node is doing.
type fleet struct {
	host    *host.Host
	id      string
	address string
	started time.Time
	lag     func() map[int32]int64 // records not yet in QuestDB, by partition; nil: no QuestDB
	rows    auditedRows            // nil: no QuestDB
	letters auditedLetters

	mu      sync.Mutex
	rate    float64 // samples per second, smoothed
	counted uint64
	at      time.Time
}

// Status implements api.Fleet.
func (f *fleet) Status(context.Context) (*doppelv1.Status, error) {
	s := &doppelv1.Status{SamplesPerSecond: f.samplesPerSecond()}
	var lag map[int32]int64
	if f.lag != nil {
		lag = f.lag()
	}
	var serving uint32
	for _, v := range f.host.Partitions() {
		p := &doppelv1.Partition{Id: v.ID, State: string(v.State), Twins: uint64(v.Twins), QuestdbLag: lag[v.ID]}
		if v.State != host.Idle {
			p.Owner, p.Epoch = f.id, uint64(v.Epoch)
		}
		if v.State == host.Serving {
			serving++
		}
		s.Partitions = append(s.Partitions, p)
		s.Twins += uint64(v.Twins)
		s.Online += uint64(v.Online)
		s.OpenAlerts += uint64(v.OpenAlerts)
	}
	s.Nodes = []*doppelv1.Node{{
		Id: f.id, Address: f.address, State: "serving", Version: Version(), Partitions: serving,
		StartTime: timestamppb.New(f.started),
	}}
	if int(serving) < len(s.GetPartitions()) {
		s.Nodes[0].State = "restoring"
	}
	return s, nil
}

// Rules implements api.Rules: those in force are the built-in ones.
func (*fleet) Rules(context.Context) ([]*doppelv1.Rule, error) {
	var rules []*doppelv1.Rule
	for _, r := range alert.Builtin() {
		rules = append(rules, codec.Rule(&r))
	}
	return rules, nil
}

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
