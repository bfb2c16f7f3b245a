package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	descNodes      = prometheus.NewDesc("doppel_cluster_nodes", "Nodes in the group, as this one knows it.", nil, nil)
	descGeneration = prometheus.NewDesc("doppel_cluster_generation", "Generation of the table of partitions that this node follows.", nil, nil)
	descSession    = prometheus.NewDesc("doppel_cluster_session_age_seconds", "Time since the group last took this node for a member; beyond 6 s it does not.", nil, nil)
	descOwned      = prometheus.NewDesc("doppel_partitions_owned", "Partitions that this node means to serve.", nil, nil)
	descMoving     = prometheus.NewDesc("doppel_partitions_moving", "Partitions on their way to this node or away from it.", nil, nil)
	descUnsettled  = prometheus.NewDesc("doppel_partitions_unsettled", "Partitions that wait longer for missing samples, because messages may be stranded at a gateway.", nil, nil)
	descHops       = prometheus.NewDesc("doppel_forwarded_total", "Messages sent to the node that serves their partition, by what became of them.", []string{"result"}, nil)
	descConnected  = prometheus.NewDesc("doppel_peers_connected", "Other nodes that this one has a connection to.", nil, nil)
	descQueued     = prometheus.NewDesc("doppel_peers_queued_bytes", "Bytes that wait to be sent to other nodes.", nil, nil)
	descRefusals   = prometheus.NewDesc("doppel_peers_refused_total", "Messages that another node did not deliver to their actor, or this one for another.", []string{"direction"}, nil)
	descStalls     = prometheus.NewDesc("doppel_peers_stalls_total", "Connections to other nodes that were given up because nothing moved.", nil, nil)
)

// clusterAccounts collects what a node knows of the others.
type clusterAccounts struct{ *assembly }

// Describe implements prometheus.Collector; the collector is unchecked.
func (a clusterAccounts) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (a clusterAccounts) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	c := a.cluster
	if t := c.group.Table(); t != nil {
		gauge(descNodes, float64(len(t.Members)))
		gauge(descGeneration, float64(t.Generation))
	}
	gauge(descSession, time.Since(c.group.Heard()).Seconds())
	_, owned := a.host.Restored()
	gauge(descOwned, float64(owned))
	gauge(descMoving, float64(c.mover.Moving()))
	unsettled := 0
	for _, v := range a.host.Partitions() {
		if v.Unsettled {
			unsettled++
		}
	}
	gauge(descUnsettled, float64(unsettled))
	a.router.Stats().Hops(func(result string, n uint64) { counter(descHops, n, result) })
	s := c.remote.Stats()
	gauge(descConnected, float64(s.Connected.Load()))
	gauge(descQueued, float64(s.Queued.Load()))
	counter(descRefusals, s.Refused.Load(), "sent")
	counter(descRefusals, s.Refusals.Load(), "received")
	counter(descStalls, s.Stalls.Load())
}
