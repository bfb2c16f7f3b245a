package node

import "github.com/doppel-iot/doppel/actors/host"

// PanicOn makes the twin of device panic at every input from now on; it is called before Run.
func (n *Node) PanicOn(panics func(device string) bool) {
	n.adjust = func(cfg *host.Config) {
		cfg.BeforeStep = func(device string) {
			if panics(device) {
				panic("a fault of this test")
			}
		}
	}
}
