// Serves Google's own stand-in for Pub/Sub on the loopback until its standard input is closed.
package main

import (
	"fmt"
	"io"
	"log"
	"os"

	"cloud.google.com/go/pubsub/pstest"
)

func main() {
	server := pstest.NewServer()
	defer server.Close()
	fmt.Println(server.Addr)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		log.Fatal(err)
	}
}
