package selection

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/doppel-iot/doppel/actors/codec"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	maxMetrics   = 16
	maxQuantiles = 16
	// maxGroups bounds what a node keeps while it counts.
	maxGroups    = 100_000
	defaultLists = 100
	maxLists     = 1000
)

// ErrGroups says that the twins fall into too many groups to be counted.
var ErrGroups = errors.New("group_by has more than 100,000 different values: group by another tag, or filter")

// GroupKind is what twins are grouped by.
type GroupKind uint8

// Groupings.
const (
	ByNothing GroupKind = iota
	ByTag
	ByOnline
	ByOwner
	ByQuarantined
)

// Grouping is an AggregateTwinsRequest that was checked.
type Grouping struct {
	Kind      GroupKind
	Tag       string // of ByTag
	Metrics   []string
	Quantiles []float64
	most      int
}

// ParseGrouping checks a request, but for its filter. Whatever is wrong with it is an *Error.
func ParseGrouping(req *doppelv1.AggregateTwinsRequest) (*Grouping, error) {
	g := &Grouping{Metrics: slices.Clone(req.GetMetrics()), Quantiles: req.GetQuantiles(), most: int(req.GetPageSize())}
	switch by := req.GetGroupBy(); by {
	case "":
	case "online":
		g.Kind = ByOnline
	case "owner":
		g.Kind = ByOwner
	case "quarantined":
		g.Kind = ByQuarantined
	default:
		tag, ok := strings.CutPrefix(by, "tags.")
		if quoted, is := strings.CutPrefix(by, `tags["`); is {
			tag, ok = strings.CutSuffix(quoted, `"]`)
		}
		if !ok || tag == "" {
			return nil, &Error{"group_by", fmt.Sprintf("%q: want tags.KEY, online, owner or quarantined", by)}
		}
		g.Kind, g.Tag = ByTag, tag
	}
	if len(g.Metrics) > maxMetrics {
		return nil, &Error{"metrics", fmt.Sprintf("%d of them: want at most %d", len(g.Metrics), maxMetrics)}
	}
	for _, m := range g.Metrics {
		if !codec.ValidMetric(m) {
			return nil, &Error{"metrics", fmt.Sprintf("%.70q is not the name of a metric: want [A-Za-z_][A-Za-z0-9_]{0,63}", m)}
		}
	}
	slices.Sort(g.Metrics)
	g.Metrics = slices.Compact(g.Metrics)
	if len(g.Quantiles) > maxQuantiles {
		return nil, &Error{"quantiles", fmt.Sprintf("%d of them: want at most %d", len(g.Quantiles), maxQuantiles)}
	}
	for _, q := range g.Quantiles {
		if math.IsNaN(q) || q < 0 || q > 1 {
			return nil, &Error{"quantiles", fmt.Sprintf("%v: want 0 to 1", q)}
		}
	}
	if len(g.Quantiles) == 0 {
		g.Quantiles = []float64{0.5, 0.9, 0.99}
	}
	switch {
	case g.most < 0:
		return nil, &Error{"page_size", fmt.Sprintf("%d is negative: want at most %d, or 0 for the default", g.most, maxLists)}
	case g.most == 0:
		g.most = defaultLists
	case g.most > maxLists:
		g.most = maxLists
	}
	return g, nil
}

// Groups are twins counted by what they have in common.
type Groups struct {
	by     *Grouping
	groups map[string]*group
	err    error
}

type group struct {
	count    int64
	sketches []Sketch // one for each metric
}

// NewGroups counts nothing yet.
func NewGroups(by *Grouping) *Groups {
	return &Groups{by: by, groups: make(map[string]*group)}
}

// Add counts a twin of a group; read gives its metrics.
func (g *Groups) Add(value string, read func(metric string) (float64, bool)) {
	g.add(g.group(value), read)
}

// AddTo is Add; value is not kept.
func (g *Groups) AddTo(value []byte, read func(metric string) (float64, bool)) {
	to := g.groups[string(value)]
	if to == nil {
		to = g.group(string(value))
	}
	g.add(to, read)
}

func (g *Groups) add(to *group, read func(metric string) (float64, bool)) {
	if to == nil {
		return
	}
	to.count++
	for i, name := range g.by.Metrics {
		if x, ok := read(name); ok {
			to.sketches[i].Add(x)
		}
	}
}

// AddProto adds what another node, or another partition, counted.
func (g *Groups) AddProto(m *doppelv1.TwinSketch) {
	to := g.group(m.GetValue())
	if to == nil {
		return
	}
	to.count += m.GetCount()
	for i, name := range g.by.Metrics {
		if s := m.GetMetrics()[name]; s != nil {
			to.sketches[i].AddProto(s)
		}
	}
}

func (g *Groups) group(value string) *group {
	to := g.groups[value]
	if to == nil {
		if len(g.groups) == maxGroups {
			g.err = ErrGroups
			return nil
		}
		to = &group{sketches: make([]Sketch, len(g.by.Metrics))}
		g.groups[strings.Clone(value)] = to
	}
	return to
}

// Err is ErrGroups if there were too many.
func (g *Groups) Err() error { return g.err }

// Protos are the groups for another node.
func (g *Groups) Protos() []*doppelv1.TwinSketch {
	all := make([]*doppelv1.TwinSketch, 0, len(g.groups))
	for value, from := range g.groups {
		m := &doppelv1.TwinSketch{Value: value, Count: from.count}
		for i, name := range g.by.Metrics {
			if from.sketches[i].count == 0 {
				continue
			}
			if m.Metrics == nil {
				m.Metrics = make(map[string]*doppelv1.MetricSketch, len(g.by.Metrics))
			}
			m.Metrics[name] = from.sketches[i].Proto()
		}
		all = append(all, m)
	}
	return all
}

// Response is the answer: the largest groups first, of equals in order of value.
func (g *Groups) Response() *doppelv1.AggregateTwinsResponse {
	type named struct {
		value string
		*group
	}
	all := make([]named, 0, len(g.groups))
	resp := &doppelv1.AggregateTwinsResponse{}
	for value, from := range g.groups {
		all = append(all, named{value, from})
		resp.TotalSize += from.count
	}
	slices.SortFunc(all, func(a, b named) int { return cmp.Or(cmp.Compare(b.count, a.count), strings.Compare(a.value, b.value)) })
	resp.MoreGroups = int64(max(0, len(all)-g.by.most))
	for _, from := range all[:min(len(all), g.by.most)] {
		m := &doppelv1.TwinGroup{Value: from.value, Count: from.count}
		for i, name := range g.by.Metrics {
			if from.sketches[i].count == 0 {
				continue
			}
			if m.Metrics == nil {
				m.Metrics = make(map[string]*doppelv1.MetricSummary, len(g.by.Metrics))
			}
			m.Metrics[name] = from.sketches[i].Summary(g.by.Quantiles)
		}
		resp.Groups = append(resp.Groups, m)
	}
	return resp
}
