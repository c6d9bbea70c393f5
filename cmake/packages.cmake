# What `scripts/package` packs: the node, the command line, the plugin's jar and what describes them.
include(GNUInstallDirs)
install(TARGETS bigcastd bigcast RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})
if(BIGCAST_SPARK_PLUGIN)
  install(FILES ${CMAKE_BINARY_DIR}/bigcast-spark-plugin.jar DESTINATION ${CMAKE_INSTALL_DATADIR}/bigcast)
endif()

set(CPACK_PACKAGE_NAME bigcast)
set(CPACK_PACKAGE_CONTACT "The Bigcast developers <bigcast@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Spark broadcasts and large objects in a memory cache")
set(CPACK_PACKAGE_DESCRIPTION 
  "Nodes keep large Spark broadcasts and other big objects as chunks in memory
and on disk, off the driver; each host pulls one copy. This package has the
node bigcastd, the command line bigcast and the jar of the Spark plugin.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION database)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON) # its dependencies: the libraries that the programs link
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "")
set(CPACK_PACKAGE_FILE_NAME "bigcast-${PROJECT_VERSION}-linux-${CMAKE_SYSTEM_PROCESSOR}")
include(CPack)
