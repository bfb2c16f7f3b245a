package node

import (
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/rulebook"
)

// openRules follows doppel.rules from here on. The node that serves partition 0 writes there.
func (a *assembly) openRules() (err error) {
	a.rules, err = rulebook.New(rulebook.Config{
		Log: a.storage, Compiler: a.host.Compiler(), Publish: a.host.SetRules,
		Writes: func() bool { return a.host.Partition(0).State == host.Serving },
		Logger: a.log.With("component", "rules"),
	})
	if err != nil {
		return err
	}
	a.life.start("rules", a.rules.Run)
	return nil
}
