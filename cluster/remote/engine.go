package remote

import (
	"fmt"

	"github.com/anthdm/hollywood/actor"
)

// NewEngine returns an actor engine whose messages to other nodes go through r.
func (r *Remote) NewEngine() (*actor.Engine, error) {
	e, err := actor.NewEngine(actor.NewEngineConfig().WithRemote(r))
	if err != nil {
		return nil, fmt.Errorf("actor engine: %w", err)
	}
	return e, nil
}
