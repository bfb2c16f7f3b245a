package oracle

import (
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// dial connects to the first of the given nodes that answers, and to another one when that goes away.
func dial(nodes string, as []grpc.DialOption) (*grpc.ClientConn, error) {
	var state resolver.State
	for _, a := range addresses(nodes) {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a, ServerName: a}}})
	}
	if len(as) == 0 {
		as = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	target, opts := nodes, append([]grpc.DialOption{
		grpc.WithDefaultServiceConfig(Patience),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.WaitForReady(true)),
	}, as...)
	if len(state.Endpoints) > 1 {
		several := manual.NewBuilderWithScheme("nodes")
		several.InitialState(state)
		target, opts = several.Scheme()+":///", append(opts, grpc.WithResolvers(several))
	}
	conn, err := grpc.NewClient(target, opts...)
	if err != nil {
		return nil, fmt.Errorf("grpc: %w", err)
	}
	return conn, nil
}

// addresses are those that a list names, with commas in between.
func addresses(list string) []string {
	var all []string
	for a := range strings.SplitSeq(list, ",") {
		if a = strings.TrimSpace(a); a != "" {
			all = append(all, a)
		}
	}
	return all
}
