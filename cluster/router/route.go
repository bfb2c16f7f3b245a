package router

// Route says where a partition is served, as this node knows it.
type Route struct {
	Local bool
	// Address of the node that serves it; empty: nobody is known to. Only without Local.
	Address string
}
