package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// drainEvery is how often it is looked how far a node has got.
const drainEvery = 250 * time.Millisecond

func clusterDrain(o *options) *cobra.Command {
	var undo, wait bool
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "Take partitions and MQTT share away from a node, so that it can be stopped", Args: exactly("NODE"),
		Long: "Take partitions and MQTT share away from a node. It goes on running, and answers and routes as before;\n" +
			"when it has nothing left it can be stopped without anybody noticing. A node that is started again is\n" +
			"not drained any more.",
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "give the node its share again")
	cmd.Flags().BoolVar(&wait, "wait", false, "return when all partitions have moved and are served, and the node has no MQTT share left")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return o.readLog(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
			client := doppelv1.NewFleetServiceClient(conn)
			bound, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			n, err := client.DrainNode(bound, &doppelv1.DrainNodeRequest{Id: args[0], Undo: undo})
			if err != nil {
				return err
			}
			if wait {
				if n, err = moved(ctx, client, n, undo); err != nil {
					return err
				}
			}
			return o.printOne(cmd.OutOrStdout(), n, func(w io.Writer) {
				fmt.Fprintf(w, "%s is %s and has %d partitions\n", n.GetId(), n.GetState(), n.GetPartitions())
			})
		})
	}
	return cmd
}

// moved waits until a node is drained, or, with undo, until nothing moves to it any more, and what has
// moved is served; a node that is gone is drained.
func moved(ctx context.Context, client doppelv1.FleetServiceClient, n *doppelv1.Node, undo bool) (*doppelv1.Node, error) {
	for {
		s, err := client.GetStatus(ctx, &doppelv1.GetStatusRequest{})
		if err != nil {
			return nil, err
		}
		owned, busy := 0, 0
		for _, p := range s.GetPartitions() {
			if p.GetOwner() == n.GetId() {
				owned++
			}
			if p.GetMovingTo() != "" || p.GetState() != "serving" {
				busy++
			}
		}
		there := false
		for _, now := range s.GetNodes() {
			if now.GetId() == n.GetId() {
				n, there = now, true
			}
		}
		shares := there && !undo && n.GetState() != "drained"
		if undo == (owned > 0) && busy == 0 && !shares {
			return n, nil
		}
		if err := sleep(ctx, drainEvery); err != nil {
			return nil, fmt.Errorf("node %s is %s and has %d partitions, %d are on their way: %w", n.GetId(), n.GetState(), owned, busy, err)
		}
	}
}
