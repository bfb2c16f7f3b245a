package fault

import "time"

// A pause below the group's session timeout of 6 s is nobody's business; one above makes the node a
// stranger in its own group. The same with links.
const (
	clusterBlink = time.Second
	clusterShort = 3 * time.Second
	overSession  = 7 * time.Second
	clusterLong  = 12 * time.Second
)

// Pace is how far apart the beginnings of faults are.
type Pace struct{ Least, Most time.Duration }

// ClusterMenu are the faults of a cluster: of its nodes, of all links between them and to the servers, and
// of all nodes together. The servers themselves are well: what they lose is theirs (RealMenu).
func ClusterMenu() []Choice {
	menu := []Choice{
		{Subject: Cluster, Kind: Rolling, Weight: 8, Most: time.Second},
		{Subject: Cluster, Kind: Scale, Weight: 5, Least: 2 * time.Second, Most: 6 * time.Second},
		{Subject: Cluster, Kind: Silence, Weight: 2, Least: clusterBlink, Most: clusterLong},
	}
	for i, n := range Members() {
		menu = append(menu,
			Choice{Subject: n, Kind: Kill, Weight: 8, Most: clusterShort},
			Choice{Subject: n, Kind: Terminate, Weight: 4, Most: clusterShort},
			Choice{Subject: n, Kind: Pause, Weight: 4, Least: clusterBlink, Most: clusterShort},
			Choice{Subject: n, Kind: Pause, Weight: 3, Least: overSession, Most: clusterLong},
		)
		for _, to := range append([]Subject{Kafka, Mosquitto}, Members()[i+1:]...) {
			menu = append(menu, onCable(Between(n, to))...)
		}
	}
	return menu
}

// onCable are the faults of any link of a cluster.
func onCable(s Subject) []Choice {
	return []Choice{
		{Subject: s, Kind: Stall, Weight: 2, Least: clusterBlink, Most: clusterShort},
		{Subject: s, Kind: Stall, Weight: 1, Least: overSession, Most: clusterLong},
		{Subject: s, Kind: StallUp, Weight: 1, Least: clusterBlink, Most: clusterLong},
		{Subject: s, Kind: StallDown, Weight: 1, Least: clusterBlink, Most: clusterLong},
		{Subject: s, Kind: LossUp, Weight: 1, Least: clusterBlink, Most: clusterLong},
		{Subject: s, Kind: LossDown, Weight: 1, Least: clusterBlink, Most: clusterLong},
		{Subject: s, Kind: DelayUp, Weight: 1, Least: clusterBlink, Most: clusterLong},
		{Subject: s, Kind: DelayDown, Weight: 1, Least: clusterBlink, Most: clusterLong},
	}
}

// PausesMenu are the faults whose pauses are promised, one at a time: nodes that leave and come back, and
// nodes that die.
func PausesMenu() []Choice {
	var menu []Choice
	for _, n := range Members() {
		menu = append(menu,
			Choice{Subject: n, Kind: Terminate, Weight: 1, Least: time.Second, Most: time.Second},
			Choice{Subject: n, Kind: Kill, Weight: 1, Least: 14 * time.Second, Most: 14 * time.Second},
		)
	}
	return menu
}

// BlackoutMenu is Kafka's being away for as long.
func BlackoutMenu(outage time.Duration) []Choice {
	return []Choice{{Subject: Cluster, Kind: Silence, Weight: 1, Least: outage, Most: outage}}
}

// The paces: of many faults on top of each other, of a cluster that has time to notice what happened, and
// of one that has come to rest before the next.
var (
	dense  = Pace{minGap, maxGap}
	loose  = Pace{2 * time.Second, 6 * time.Second}
	sparse = Pace{32 * time.Second, 32 * time.Second}
)
