/* libmodbus as the PLC of the tests: libmodbus_server PORT
 *
 * Standard input: lines "TABLE ADDRESS VALUE", TABLE being coil, discrete, input or holding, then
 * end of file. Writes "ready" when it accepts connections; serves one after the other. */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ADDRESSES = 65536 };

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, modbus_strerror(errno));
    exit(1);
}

static void fill(modbus_mapping_t *memory)
{
    char table[16];
    unsigned address, value;
    while (scanf("%15s %u %u", table, &address, &value) == 3) {
        if (address >= ADDRESSES)
            exit(2);
        if (strcmp(table, "coil") == 0)
            memory->tab_bits[address] = value;
        else if (strcmp(table, "discrete") == 0)
            memory->tab_input_bits[address] = value;
        else if (strcmp(table, "input") == 0)
            memory->tab_input_registers[address] = value;
        else if (strcmp(table, "holding") == 0)
            memory->tab_registers[address] = value;
        else
            exit(2);
    }
}

int main(int count, char **arguments)
{
    unsigned char request[MODBUS_TCP_MAX_ADU_LENGTH];
    modbus_t *server = modbus_new_tcp("127.0.0.1", count == 2 ? atoi(arguments[1]) : -1);
    modbus_mapping_t *memory = modbus_mapping_new(ADDRESSES, ADDRESSES, ADDRESSES, ADDRESSES);
    if (server == NULL || memory == NULL)
        die("cannot be made");
    fill(memory);
    int listener = modbus_tcp_listen(server, 1);
    if (listener < 0)
        die("cannot listen");
    puts("ready");
    fflush(stdout);
    while (modbus_tcp_accept(server, &listener) >= 0) {
        int length;
        while ((length = modbus_receive(server, request)) >= 0)
            if (length > 0 && modbus_reply(server, request, length, memory) < 0)
                break;
        modbus_close(server);
    }
    die("cannot accept");
}
