package cli

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

const (
	importParallel = 32
	importProgress = time.Second
	importShown    = 20 // bad lines that are named; the others are counted
)

func twinImport(o *options) *cobra.Command {
	parallel := importParallel
	var dry bool
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Give many twins tags and desired properties from a file, - for standard input", Args: exactly("FILE"),
		Long: "Reads CSV whose header is id and the names of tags, or JSON: an array, or one object a line, such as\n" +
			"  {\"id\": \"pump-1\", \"tags\": {\"site\": \"brno\", \"old\": null}, \"desired\": {\"rate\": 10}}\n\n" +
			"Tags that are not mentioned stay, as do those whose cell is empty; null removes one. Desired is a merge patch.\n" +
			"Twins that do not exist are made. Bad lines are named and skipped; the exit code is then 1.",
	}
	cmd.Flags().IntVar(&parallel, "parallel", importParallel, "so many updates at a time")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only check the file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if parallel < 1 || parallel > 1024 {
			return usagef("--parallel: %d is not between 1 and 1024", parallel)
		}
		from := cmd.InOrStdin()
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return usagef("%w", err)
			}
			defer f.Close() //nolint:errcheck // it is read only
			from = f
		}
		rows, err := newRows(from)
		if err != nil {
			return usagef("%s: %w", args[0], err)
		}
		i := &importing{name: args[0], errs: cmd.ErrOrStderr(), began: time.Now()}
		if err := i.run(cmd, o, rows, parallel, dry); err != nil {
			return err
		}
		return i.result(cmd.OutOrStdout(), dry)
	}
	return cmd
}

// importing is an import on its way.
type importing struct {
	name  string
	errs  io.Writer
	began time.Time

	mu     sync.Mutex
	done   int
	bad    int
	shown  time.Time
	failed error // ends it
}

// run hands the rows to workers; those of one twin to the same one, in their order.
func (i *importing) run(cmd *cobra.Command, o *options, rows rows, parallel int, dry bool) error {
	conn, err := o.connect()
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing was left unsaid
	ctx, stop := interrupted(cmd.Context())
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	twins := doppelv1.NewTwinServiceClient(conn)
	queues := make([]chan row, parallel)
	var wg sync.WaitGroup
	for k := range queues {
		queues[k] = make(chan row, 4)
		wg.Go(func() {
			for r := range queues[k] {
				if ctx.Err() == nil && i.write(ctx, twins, r) != nil {
					cancel()
				}
			}
		})
	}
	err = rows.each(func(r row) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case r.err != nil:
			i.report(r.line, r.err)
		case dry:
			i.count()
		default:
			h := fnv.New32a()
			_, _ = h.Write([]byte(r.id)) // never fails
			queues[h.Sum32()%uint32(parallel)] <- r
		}
		return nil
	})
	for _, q := range queues {
		close(q)
	}
	wg.Wait()
	switch {
	case i.failed != nil:
		return i.failed
	case ctx.Err() != nil:
		return fmt.Errorf("%s: interrupted after %d twins", i.name, i.done)
	case err != nil:
		return fmt.Errorf("%s: %w", i.name, err)
	}
	return nil
}

// write makes one update; an error ends the import, as the next one would meet it, too.
func (i *importing) write(ctx context.Context, twins doppelv1.TwinServiceClient, r row) error {
	bound, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req := &doppelv1.UpdateTwinRequest{Twin: &doppelv1.Twin{Id: r.id, Tags: r.tags, Desired: r.desired}, AllowMissing: true}
	if paths := r.paths(); len(paths) > 0 {
		req.UpdateMask = &fieldmaskpb.FieldMask{Paths: paths}
	}
	_, err := twins.UpdateTwin(bound, req)
	switch code := status.Code(err); {
	case err == nil:
		i.count()
	case code == codes.Unavailable, code == codes.Unauthenticated, code == codes.PermissionDenied, code == codes.Unimplemented, code == codes.DeadlineExceeded:
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.failed == nil && ctx.Err() == nil {
			i.failed = err
			fmt.Fprintf(i.errs, "%s: ended at line %d, after %d twins\n", i.name, r.line, i.done)
		}
		return err
	default:
		i.report(r.line, fmt.Errorf("%s: %s", r.id, message(err)))
	}
	return nil
}

// count counts a row that went well, and says now and then how far it is.
func (i *importing) count() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.done++
	if now := time.Now(); now.Sub(i.began) > importProgress && now.Sub(i.shown) > importProgress {
		i.shown = now
		fmt.Fprintf(i.errs, "%d twins, %.0f a second\n", i.done, float64(i.done)/now.Sub(i.began).Seconds())
	}
}

// report names a bad line.
func (i *importing) report(line int, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.bad++; i.bad <= importShown {
		fmt.Fprintf(i.errs, "%s:%d: %v\n", i.name, line, err)
	}
}

func (i *importing) result(w io.Writer, dry bool) error {
	what := "imported"
	if dry {
		what = "would import"
	}
	fmt.Fprintf(w, "%s %d twins, %d bad lines\n", what, i.done, i.bad)
	if more := i.bad - importShown; more > 0 {
		fmt.Fprintf(i.errs, "%s: and %d more\n", i.name, more)
	}
	if i.bad > 0 {
		return fmt.Errorf("%s: %d bad lines", i.name, i.bad)
	}
	return nil
}
