// Command doppel keeps a live twin of every device in a fleet. This file says which subcommand goes
// where, nothing else.
package main

import (
	"os"

	"github.com/doppel-iot/doppel/cluster/node"
	"github.com/doppel-iot/doppel/gateway/cli"
	"github.com/doppel-iot/doppel/sim/command"
	"github.com/doppel-iot/doppel/sim/demo"
)

func main() {
	root := cli.Root()
	root.AddCommand(node.Command(), node.ConfigCommand(), demo.Command(), command.Sim())
	os.Exit(cli.Execute(root, node.ErrUsage))
}
