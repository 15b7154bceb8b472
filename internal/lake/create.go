package lake

import (
	"context"

	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/io/gocloud/blobfs"
	"gocloud.dev/blob"
)

// An upload in parts keeps as many in memory as are sent at once, and one more;
// until it is known that a file has parts at all, its beginning is kept, of 16
// MiB with the AWS SDK. Its defaults, five parts at once, would take 64 MiB for
// each open file.
const (
	uploadPart  = 8 << 20
	uploadsMax  = 1
	uploadHolds = 16<<20 + (uploadsMax+1)*uploadPart
)

// Create begins a new file. held is how many of its bytes it keeps in memory, at
// most.
func Create(ctx context.Context, fs iceio.WriteFileIO, name string) (w iceio.FileWriter, held int64, err error) {
	b, ok := fs.(*blobfs.FileIO)
	if !ok {
		w, err = fs.Create(name)
		return w, 0, err
	}
	w, err = b.NewWriter(ctx, name, true, &blob.WriterOptions{BufferSize: uploadPart, MaxConcurrency: uploadsMax})
	return w, uploadHolds, err
}
